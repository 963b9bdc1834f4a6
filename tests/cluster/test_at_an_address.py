"""Packages of results at an address: a worker puts them there itself, and the client need not be passed."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from coreml_prune_bench.cluster.parcel import pack
from coreml_prune_bench.cluster.tasks import Order, sent
from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.records.mirror import Mirror
from coreml_prune_bench.records.store import Store
from tests.cluster.clusters import Cluster
from tests.cluster.test_run import SMALLEST, in_process, json_of, one_processor  # noqa: F401  (a fixture)

ADDRESS = "memory://bench/results"
ORDER = Order("tag", "topic", "task", 1, "net, pruned", address=ADDRESS, build_key="b" * 64)


@pytest.fixture
def parcel(tmp_path, monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "worker"))
    store = Store(tmp_path / "scratch")

    def fill(empty: Path) -> dict[str, str]:
        (empty / "weights").write_bytes(bytes(1000))
        return {"scope": "all"}

    return pack(store, store.artifact("a" * 64, fill))


def test_a_package_is_found_there_under_the_key_of_the_client(parcel, tmp_path, monkeypatch):
    said: list[str] = []
    assert sent(ORDER, parcel, SimpleNamespace(say=said.append)) is None
    assert not list(Mirror(ADDRESS).folder.glob("artifacts/[!.]*")), "nothing stays on the worker"
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "client"))
    store = Store(Mirror(ADDRESS).folder)
    found = store.found("b" * 64)
    assert (found / "weights").read_bytes() == bytes(1000)
    assert store.manifest(found) == {"scope": "all"}
    assert said == []


def test_without_an_address_or_the_way_to_it_the_client_gets_it_and_a_line_says_why(parcel, monkeypatch):
    def refuse(self, path, to, **options):
        raise PermissionError("Access Denied")

    said: list[str] = []
    teller = SimpleNamespace(say=said.append)
    assert sent(Order("tag", "topic", "task", 1, "net"), parcel, teller) is parcel
    assert said == []
    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
    assert sent(ORDER, parcel, teller) is parcel
    assert said == [f"--results {ADDRESS}: Access Denied; net, pruned: its package goes by way of the client"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are fixed on Linux alone")
def test_a_run_has_the_table_of_one_process_and_its_packages_at_the_address(
    one_processor,  # noqa: F811
    run_bench,
    tmp_path,
    monkeypatch,
):
    suite, address = tmp_path / "small.toml", f"file://{tmp_path}/address"
    suite.write_text(SMALLEST)
    expected = in_process(suite, tmp_path / "here")
    cluster = Cluster(tmp_path)
    try:
        monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "worker"))
        cluster.join("box")
        monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "client"))
        code, _, errors = cluster.call("run", "--suite", suite, "--results", address, "--threads", 1)
        assert code == 0, errors
    finally:
        cluster.end()
    assert json_of(read_records(tmp_path / "address")) == expected
    names = {path.name for path in (tmp_path / "address" / "artifacts").iterdir()}
    assert names == {path.name for path in (tmp_path / "here").glob("artifacts/[!.]*")}
    (pruned,) = (one for one in read_records(tmp_path / "address") if one.pruning.algorithm != "dense")
    assert tree_hash(tmp_path / "address" / pruned.package.path) == pruned.package.sha256
    folder = Path(pruned.package.path).parent
    assert not (Mirror(address).folder / folder).exists(), "the client has not seen it"
    code, _, errors = run_bench("package", "save", pruned.row, tmp_path / "x.mlpackage", "--results", address)
    assert code == 0, errors
    assert (tmp_path / "x.mlpackage" / "Manifest.json").is_file()
