"""What is kept on disk: counted as the disk counts it; what can be made again goes, results and what is used do not."""

import os
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from coreml_prune_bench.core.cache_folder import use
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.records.kept import Kind, bound, clear, kinds

KEY = "0123456789abcdef"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, size: int = 5000, age_s: float = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([7]) * size)
    for written in (path, *list(path.parents)[:3]):
        os.utime(written, (1e9 - age_s,) * 2)
    return path


@pytest.fixture
def results(cache, tmp_path) -> Path:
    """One entry of each kind, two of some, with the locks that stand beside them."""
    write(cache / "images" / "a-224" / "pixels", 20_000, age_s=1)
    write(cache / "images" / ".a-224.lock", 0)
    write(cache / "portable" / "b" / "weights.bin", 30_000, age_s=3)
    write(cache / "portable" / ".unfinished" / "c" / "weights.bin", 3000)
    write(cache / "portable" / ".lock", 0)
    write(cache / "compiled" / "d-1" / "model.mlmodelc" / "weights", 4000, age_s=2)
    write(cache / "compiled" / "d-1.lock", 0)
    write(cache / "modelrunner" / "e" / "app")
    write(cache / "digests" / "f.json", 300)
    write(cache / "published" / "g.mlpackage" / "Manifest.json")
    write(cache / "published" / "published.lock.json", 100)
    write(cache / "results" / "s3-x-12345678" / "results" / "records" / "r.json")
    made = tmp_path / "results" / "artifacts"
    write(made / "fedcba9876543210" / "network.pt")
    write(made / ".fedcba9876543210.lock", 0)
    write(made / f".{KEY}.lock", 0)
    write(made / f".{KEY}.checkpoint", 9000)
    write(made / f".{KEY}.checkpoint.tmp", 500)
    write(made / ".cluster" / "artifacts" / "fedcba9876543210" / "network.pt")
    write(made / ".cluster.lock", 0)
    write(made / f".{KEY}.tmp" / "x.mlpackage" / "weight.bin", 7000)
    write(tmp_path / "results" / "records" / "r.json")
    write(tmp_path / "results" / "records" / "s.json.damaged")
    write(tmp_path / "results" / "records" / ".r.99.tmp", 10)
    write(tmp_path / "results" / "latency" / "l.json")
    return tmp_path / "results"


def found(results: Path) -> dict[str, Kind]:
    return {kind.name: kind for kind in kinds(results)}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_everything_is_counted_once_as_the_disk_counts_it(results, cache):
    counts = {name: len(kind.entries) for name, kind in found(results).items()}
    assert counts == {
        "images": 1,
        "portable": 2,
        "compiled": 1,
        "modelrunner": 1,
        "digests": 1,
        "results": 1,
        "published": 1,
        "checkpoints": 2,
        "unfinished": 3,
        "artifacts": 1,
        "records": 3,
    }
    told = subprocess.run(["du", "-sk", cache / "images" / "a-224"], capture_output=True, text=True, check=True).stdout
    assert found(results)["images"].size_bytes == 1024 * int(told.split()[0])
    holes = cache / "images" / "a-224" / "pixels"
    os.truncate(holes, 1 << 40)
    assert found(results)["images"].size_bytes < 1 << 20


def test_what_can_be_made_again_goes_and_results_work_and_downloads_stay(results, cache):
    done = {one.kind: (one.entries, one.used) for one in clear(None, results)}
    assert done == {
        "images": (1, 0),
        "portable": (2, 0),
        "compiled": (1, 0),
        "modelrunner": (1, 0),
        "digests": (1, 0),
        "unfinished": (3, 0),
    }
    left = {name for name in names(cache) if not name.endswith(".lock")}
    copy = "results/s3-x-12345678/results/records/r.json"
    assert left == {copy, "published/g.mlpackage/Manifest.json", "published/published.lock.json"}
    assert {name for name in names(results) if not name.endswith(".lock")} == {
        "artifacts/fedcba9876543210/network.pt",
        f"artifacts/.{KEY}.checkpoint",
        "artifacts/.cluster/artifacts/fedcba9876543210/network.pt",
        "records/r.json",
        "records/s.json.damaged",
        "latency/l.json",
    }
    assert sum(one.entries for one in clear(None, results)) == 0


def test_what_is_named_goes_and_nothing_else(results, cache):
    before = names(cache) | names(results)
    done = clear(["published", "checkpoints"], results)
    assert [(one.kind, one.entries) for one in done] == [("published", 1), ("checkpoints", 2)]
    after = {name for name in names(cache) | names(results) if not name.endswith(".lock")}
    shared = "artifacts/.cluster/artifacts/fedcba9876543210/network.pt"
    gone = {"published/g.mlpackage/Manifest.json", f"artifacts/.{KEY}.checkpoint", shared}
    assert after == {name for name in before - gone if not name.endswith(".lock")}


def test_what_a_process_uses_or_works_on_stays(results, cache):
    held = use(cache / "portable" / "b")
    writing = write(results / "records" / ".now.1.tmp", 10)
    os.utime(writing)
    with FileLock(results / "artifacts" / f".{KEY}.lock"), FileLock(results / "artifacts" / ".cluster.lock"):
        assert [entry.path.name for entry in found(results)["portable"].entries if entry.used] == ["b"]
        done = {one.kind: (one.entries, one.used) for one in clear(None, results)}
        assert (done["portable"], done["unfinished"]) == ((1, 1), (1, 3))
        assert [(one.entries, one.used) for one in clear(["checkpoints"], results)] == [(0, 2)]
    assert held
    assert (cache / "portable" / "b" / "weights.bin").is_file()
    assert (results / "artifacts" / f".{KEY}.tmp" / "x.mlpackage" / "weight.bin").is_file()


def test_what_is_finished_while_it_is_looked_at_stays(results, cache, monkeypatch):
    """A run gives a record its name between the list of what is unfinished and its removal."""
    listed = kinds(results)
    (results / "records" / ".r.99.tmp").rename(results / "records" / "now.json")
    monkeypatch.setattr("coreml_prune_bench.records.kept.kinds", lambda folder: listed)
    (done,) = clear(["unfinished"], results)
    assert (done.entries, done.used) == (2, 1)
    assert (results / "records" / "now.json").is_file()


def test_a_fetch_at_work_keeps_all_that_was_published(results, cache, monkeypatch):
    monkeypatch.setattr("coreml_prune_bench.records.kept._PATIENCE_S", 0)
    with FileLock(cache / "published" / ".lock"):
        assert [(one.entries, one.used) for one in clear(["published"], results)] == [(0, 1)]


def test_what_was_not_used_for_longest_goes_first_and_what_is_used_counts(results, cache):
    sizes = {name: kind.size_bytes for name, kind in found(results).items()}
    held = use(cache / "modelrunner" / "e")
    room = sizes["images"] + sizes["compiled"] + sizes["modelrunner"]
    done = {one.kind: (one.entries, one.used) for one in bound(room, results) if one.entries or one.used}
    # By age: the unfinished translation and the hashes, the other one, compiled, images, the apps (used now).
    assert held
    assert done == {"portable": (2, 0), "digests": (1, 0)}
    assert not bound(0, results)[0].used
    assert [len(found(results)[name].entries) for name in ("images", "compiled", "modelrunner")] == [0, 0, 1]
    assert len(found(results)["published"].entries) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image", "no kind 'image'; did you mean 'images'\\?; known: images, portable"),
        ("artifacts", "artifacts are results, which this never removes"),
        ("records", "records are results, which this never removes"),
    ],
)
def test_what_cannot_be_cleared_is_said_before_anything_goes(name, message, results, cache):
    before = names(cache) | names(results)
    with pytest.raises(BenchError, match=message):
        clear(["images", name], results)
    assert names(cache) | names(results) == before


def test_nothing_there_is_nothing(cache, tmp_path):
    assert sum(kind.size_bytes for kind in kinds(tmp_path / "none")) == 0
    assert clear(None, tmp_path / "none")[0].entries == 0
    assert not cache.exists()
