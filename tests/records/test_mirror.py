"""Results at an address, here in this process's memory: copied, written back, and found again by another machine."""

import json
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.records.mirror import Mirror, is_address
from coreml_prune_bench.records.store import Store

ADDRESS = "memory://bench/results"


@pytest.fixture(autouse=True)
def system(tmp_path, monkeypatch):
    """Empty, as is the cache folder."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "cache"))
    return MemoryFileSystem()


@pytest.fixture
def another_machine(tmp_path, monkeypatch):
    return lambda: monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "another"))


def test_an_address_is_no_folder():
    assert is_address("s3://bucket/results")
    assert not is_address("results/local")
    assert not is_address("C:/results")


def test_what_is_there_comes_and_what_went_there_goes(system):
    system.pipe("/bench/results/records/a.json", b"1")
    system.pipe("/bench/results/latency/b.json", b"2")
    system.pipe("/bench/results/records/notes.txt", b"no record")
    mirror = Mirror(ADDRESS)
    mirror.pull()

    def here() -> dict[str, str]:
        paths = [path for path in mirror.folder.rglob("*") if path.is_file()]
        return {path.relative_to(mirror.folder).as_posix(): path.read_text() for path in paths}

    assert here() == {"records/a.json": "1", "latency/b.json": "2"}
    system.pipe("/bench/results/records/a.json", b"3")
    system.rm("/bench/results/latency/b.json")
    (mirror.folder / "records" / "mine.json").write_text("4")  # not pushed yet
    mirror.pull()
    assert here() == {"records/a.json": "3", "records/mine.json": "4"}
    mirror.push()
    assert system.cat("/bench/results/records/mine.json") == b"4"


def test_only_what_is_new_is_sent(system, monkeypatch):
    mirror = Mirror(ADDRESS)
    folder = mirror.folder / "latency"
    folder.mkdir()
    (folder / "a.json").write_text("1")
    sent: list[str] = []
    put = MemoryFileSystem.put_file
    monkeypatch.setattr(
        MemoryFileSystem,
        "put_file",
        lambda self, path, to, **options: sent.append(to) or put(self, path, to, **options),
    )
    mirror.push()
    mirror.push()
    (folder / "a.json").write_text("12")
    mirror.push()
    assert sent == ["/bench/results/latency/a.json"] * 2
    mirror.pull()
    assert (folder / "a.json").read_text() == "12"


def test_an_artifact_is_made_once_for_all_machines(system, another_machine):
    def fill(folder: Path) -> dict[str, str]:
        (folder / "x.mlpackage").mkdir()
        (folder / "x.mlpackage" / "weights").write_bytes(b"weights")
        return {"by": "hand"}

    def refuse(folder: Path) -> dict[str, str]:
        raise AssertionError("made again")

    made = Store(Mirror(ADDRESS).folder).artifact("k" * 64, fill)
    assert system.exists(f"/bench/results/artifacts/{made.name}/manifest.json")
    another_machine()
    store = Store(Mirror(ADDRESS).folder)
    assert store.found("n" * 64) is None
    found = store.artifact("k" * 64, refuse)
    assert found != made
    assert (found / "x.mlpackage" / "weights").read_bytes() == b"weights"
    assert store.manifest(found) == {"by": "hand"}
    # One that arrives damaged is made again, and is whole there then.
    system.pipe(f"/bench/results/artifacts/{made.name}/x.mlpackage/weights", b"damaged")
    (found / "x.mlpackage" / "weights").unlink()
    assert (store.artifact("k" * 64, fill) / "x.mlpackage" / "weights").read_bytes() == b"weights"
    assert system.cat(f"/bench/results/artifacts/{made.name}/x.mlpackage/weights") == b"weights"


def test_a_run_there_goes_on_on_another_machine(run_bench, tiny_suite, tmp_path, another_machine):
    command = ("run", "--suite", tiny_suite, "--format", "csv", "--results")
    code, expected, errors = run_bench(*command, tmp_path / "here")
    assert code == 0, errors
    code, output, errors = run_bench(*command, ADDRESS)
    assert (code, output) == (0, expected), errors
    another_machine()
    code, output, errors = run_bench(*command, ADDRESS)
    assert (code, output) == (0, expected)
    assert "0 of 6 cells measured now" in errors
    assert run_bench("table", "--format", "csv", "--results", ADDRESS)[1] == expected
    row = next(record for record in read_records(tmp_path / "here") if record.pruning.algorithm == "post-training")
    saved = tmp_path / "saved.mlpackage"
    code, _, errors = run_bench("package", "save", row.row, saved, "--results", ADDRESS)
    assert code == 0, errors
    assert saved.is_dir()


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("nope://x", "--results nope://x: Protocol not known: nope"),
        ("memory://bench/empty", "no records in"),
    ],
)
def test_what_is_no_address_or_has_nothing_is_a_line(refused, address, line):
    assert refused("table", "--results", address).startswith(f"error: {line}")


def test_what_a_system_refuses_is_a_line_that_names_the_address(monkeypatch):
    def refuse(self, path, **options):
        raise PermissionError("Access\nDenied")

    monkeypatch.setattr(MemoryFileSystem, "ls", refuse)
    MemoryFileSystem().pipe("/bench/results/records/a.json", json.dumps({}).encode())
    with pytest.raises(BenchError, match=r"^--results memory://bench/results: Access Denied$"):
        Mirror(ADDRESS).pull()
