"""Artifacts between machines: the same files arrive, or nothing does."""

from dataclasses import replace
from pathlib import Path

import pytest
from dask.sizeof import sizeof

from coreml_prune_bench.cluster.parcel import pack, put
from coreml_prune_bench.cluster.tasks import Result
from coreml_prune_bench.core.errors import DamagedFileError
from coreml_prune_bench.core.files import MANIFEST, tree_hashes
from coreml_prune_bench.records.store import Store


@pytest.fixture
def sent(tmp_path):
    """A store, and the folder of an artifact in it."""
    store = Store(tmp_path / "here")

    def fill(empty):
        (empty / "net.mlpackage" / "Data").mkdir(parents=True)
        (empty / "net.mlpackage" / "Data" / "weight.bin").write_bytes(bytes(range(256)) * 100)
        (empty / "net.mlpackage" / MANIFEST).write_text("a package's own, not the artifact's")
        return {"scope": "all"}

    return store, store.artifact("a" * 64, fill)


def test_an_artifact_arrives_as_it_was_under_another_key(sent, tmp_path):
    store, folder = sent
    there = Store(tmp_path / "there")
    arrived = put(there, "b" * 64, pack(store, folder))
    assert tree_hashes(arrived) == tree_hashes(folder)
    assert (arrived / "net.mlpackage" / MANIFEST).is_file()
    assert there.manifest(arrived) == {"scope": "all"}
    assert there.found("b" * 64) == arrived
    assert there.found("a" * 64) is None


def test_the_same_artifact_is_the_same_bytes(sent):
    store, folder = sent
    assert pack(store, folder).sha256 == pack(store, folder).sha256


def test_dask_counts_its_bytes(sent):
    parcel = pack(*sent)
    assert len(parcel.files) < sizeof(parcel) < 1.1 * len(parcel.files)
    assert sizeof(Result(b"{}", parcel, 1.0)) > len(parcel.files)


def test_one_flipped_bit_is_seen_and_nothing_is_kept(sent, tmp_path):
    parcel = pack(*sent)
    damaged = bytearray(parcel.files)
    damaged[-2000] ^= 1
    there = Store(tmp_path / "there")
    with pytest.raises(DamagedFileError, match="an artifact arrived damaged: SHA-256"):
        put(there, "b" * 64, replace(parcel, files=bytes(damaged)))
    assert there.found("b" * 64) is None
    assert [path for path in (tmp_path / "there" / "artifacts").iterdir() if path.suffix != ".lock"] == []


def test_nothing_is_written_outside(tmp_path):
    import hashlib
    import io
    import zipfile

    from coreml_prune_bench.cluster.parcel import Parcel

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("../outside", "/outside-too", "a/../../outside"):
            archive.writestr(name, "")
    files = buffer.getvalue()
    folder = put(Store(tmp_path / "there"), "b" * 64, Parcel({}, files, hashlib.sha256(files).hexdigest()))
    assert all(path.is_relative_to(folder) for path in tmp_path.glob("**/outside*"))
    assert not Path("/outside-too").exists()
