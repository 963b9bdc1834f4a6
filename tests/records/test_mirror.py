"""Results at an address, here in this process's memory: copied, written back, and found again by another machine."""

import json
import shutil
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.records.mirror import Mirror, is_address
from coreml_prune_bench.records.store import Store
from tests.factories import accuracy_record, failed_record

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


def test_what_failed_here_does_not_replace_what_another_machine_measured(system, another_machine):
    name, failed = "resnet50--sparse-gpt--x", failed_record()
    measured = accuracy_record([True, False]).model_copy(update={"key": failed.key})
    here = Store(Mirror(ADDRESS).folder)
    another_machine()
    there = Store(Mirror(ADDRESS).folder)
    assert here.write_record(name, measured) == measured
    assert there.write_record(name, failed) == measured  # though it had not come there yet
    assert json.loads(system.cat(f"/bench/results/records/{name}.json"))["status"] == "measured"
    mirror = Mirror(ADDRESS)
    (mirror.folder / "records" / f"{name}.json").write_text(failed.to_json())
    mirror.push()
    assert json.loads(system.cat(f"/bench/results/records/{name}.json"))["status"] == "measured"


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


def test_an_artifact_whose_way_was_barred_goes_there_with_the_next_command(system, monkeypatch):
    def refuse(self, path, to, **options):
        raise ConnectionError("away")

    mirror = Mirror(ADDRESS)
    with monkeypatch.context() as away:
        away.setattr(MemoryFileSystem, "put_file", refuse)
        with pytest.raises(BenchError, match=f"^--results {ADDRESS}: away$"):
            Store(mirror.folder).artifact("k" * 64, lambda folder: {"by": "hand"})
    name = f"/bench/results/artifacts/{'k' * 16}/manifest.json"
    assert not system.exists(name)
    mirror.push()
    assert system.exists(name)
    system.rm(name)
    mirror.push()  # what went there is not looked for again
    assert not system.exists(name)


def test_a_record_goes_there_when_it_is_written(system, tiny_run):
    record = tiny_run.records[0]
    Store(Mirror(ADDRESS).folder).write_record("a", record)
    assert system.cat("/bench/results/records/a.json").decode() == record.to_json()


def test_what_one_machine_measured_another_finds(
    run_bench, tiny_suite, tiny_run, tiny_results, tmp_path, another_machine
):
    mirror = Mirror(ADDRESS)
    shutil.copytree(tiny_results, mirror.folder, dirs_exist_ok=True)
    mirror.push()
    another_machine()
    code, output, errors = run_bench("run", "--suite", tiny_suite, "--format", "csv", "--results", ADDRESS)
    assert code == 0, errors
    assert "0 of 6 cells measured now" in errors
    assert output == run_bench("table", "--format", "csv", "--results", tiny_results)[1]
    row = next(record for record in tiny_run.records if record.pruning.algorithm == "post-training")
    saved = tmp_path / "saved.mlpackage"
    code, _, errors = run_bench("package", "save", row.row, saved, "--results", ADDRESS)
    assert code == 0, errors
    assert (saved / "Manifest.json").is_file()


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
