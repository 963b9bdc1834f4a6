"""The store: what it holds is whole, and what was not finished is not there."""

import json
import multiprocessing
import time
from pathlib import Path

import pytest
from filelock import FileLock

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.records.store import Store

KEY = "a" * 64


def fill(folder: Path) -> dict[str, str]:
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("content")
    return {"note": "made"}


def never(folder: Path) -> dict[str, str]:
    raise AssertionError("must not be made again")


def test_an_artifact_is_made_once_and_keeps_what_was_said_of_it(tmp_path):
    store = Store(tmp_path)
    folder = store.artifact(KEY, fill)
    assert store.artifact(KEY, never) == folder
    assert store.manifest(folder) == {"note": "made"}
    assert (folder / "sub" / "file").read_text() == "content"


@pytest.mark.parametrize("damage", [lambda f: f.write_text("changed"), lambda f: f.unlink()], ids=["changed", "gone"])
def test_a_damaged_artifact_is_made_again(tmp_path, damage):
    store = Store(tmp_path)
    damage(store.artifact(KEY, fill) / "sub" / "file")
    assert (store.artifact(KEY, fill) / "sub" / "file").read_text() == "content"


@pytest.mark.parametrize("name", [".DS_Store", "sub/._file", "Thumbs.db", "sub/desktop.ini", "notes.txt", "sub/more/x"])
def test_a_file_that_the_manifest_does_not_name_changes_no_artifact(tmp_path, name):
    store = Store(tmp_path)
    folder = store.artifact(KEY, fill)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("foreign")
    assert store.artifact(KEY, never) == folder
    assert (folder / name).read_text() == "foreign"
    (folder / "sub" / "file").write_text("damaged")
    assert (store.artifact(KEY, fill) / "sub" / "file").read_text() == "content"


@pytest.mark.parametrize("files", ["[]", "3", '{"sub/file": 3}', '{"sub": "00"}'])
def test_an_artifact_with_a_damaged_manifest_is_made_again(tmp_path, files):
    store = Store(tmp_path)
    folder = store.artifact(KEY, fill)
    made = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(made | {"files": json.loads(files)}))
    (folder / "sub" / "file").write_text("damaged")
    assert (store.artifact(KEY, fill) / "sub" / "file").read_text() == "content"


def test_an_artifact_of_another_layout_is_made_again(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.artifact("a" * 64, lambda folder: {"old": True})
    monkeypatch.setattr("coreml_prune_bench.records.store._LAYOUT", 2)
    folder = store.artifact("a" * 64, lambda folder: {"new": True})
    assert store.manifest(folder) == {"new": True}


def test_nothing_is_left_of_an_artifact_that_could_not_be_made(tmp_path):
    def full_disk(folder: Path) -> dict[str, str]:
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    store = Store(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        store.artifact(KEY, full_disk)
    assert [path.name for path in (tmp_path / "artifacts").iterdir() if not path.name.endswith(".lock")] == []
    assert store.artifact(KEY, fill).is_dir()


def test_what_a_killed_run_left_behind_does_not_get_into_the_artifact(tmp_path):
    left = tmp_path / "artifacts" / f".{KEY[:16]}.tmp"
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    folder = Store(tmp_path).artifact(KEY, fill)
    assert not (folder / "half").exists()


def test_what_killed_runs_left_behind_goes_with_the_next_run_and_what_is_being_made_stays(tmp_path):
    store = Store(tmp_path)
    store.artifact(KEY, fill)
    (tmp_path / "records").mkdir(exist_ok=True)
    left, made = (tmp_path / "artifacts" / f".{letter * 16}.tmp" for letter in "ab")
    for folder in (left, made):
        folder.mkdir()
        (folder / "half").write_text("half")
    (tmp_path / "records" / ".0123456789ab.4711.tmp").write_text("half")
    with FileLock(made.with_suffix(".lock")):
        Store(tmp_path).artifact(KEY, fill)
        assert (left.exists(), made.exists()) == (False, True)
    Store(tmp_path).artifact(KEY, fill)
    assert not list(tmp_path.rglob("*.tmp"))


def _make_slowly(results: Path, log: Path) -> None:
    def slow(folder: Path) -> dict[str, str]:
        time.sleep(0.3)
        with log.open("a") as file:
            file.write("made\n")
        return fill(folder)

    Store(results).artifact(KEY, slow)


def test_two_processes_that_need_one_artifact_make_it_once(tmp_path):
    log = tmp_path / "log"
    workers = [multiprocessing.Process(target=_make_slowly, args=(tmp_path / "r", log)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert log.read_text() == "made\n"


def test_a_write_that_fails_leaves_the_old_text_and_no_other_file(tmp_path):
    path = tmp_path / "record.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")  # cannot be encoded
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_manifest_names_every_file_with_its_hash(tmp_path):
    folder = Store(tmp_path).artifact(KEY, fill)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    # sha256 of b"content", from coreutils' sha256sum
    assert files == {"sub/file": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"}


def test_results_that_are_a_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="is a file; expected a folder"):
        Store(tmp_path / "file")
