"""Entries of the cache: kept while a process uses them, removed whole once none does."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coreml_prune_bench.core.cache_folder import is_used, remove, use, use_new

HOLDER = """
import sys
from pathlib import Path
from coreml_prune_bench.core.cache_folder import use
used = use(Path(sys.argv[1]))
print("used" if used else "not there", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["folder", "file"])
def entry(request, tmp_path) -> Path:
    path = tmp_path / "kind" / "entry"
    path.parent.mkdir()
    if request.param == "file":
        path.write_text("content")
    else:
        path.mkdir()
        (path / "content").write_text("content")
    return path


def test_what_this_process_uses_stays_until_all_uses_end(entry):
    one, other = use(entry), use(entry)
    assert one
    assert other
    assert (is_used(entry), remove(entry)) == (True, False)
    one.end()
    assert not remove(entry)
    del other
    assert not is_used(entry)
    assert remove(entry)
    assert list(entry.parent.iterdir()) == []


def test_what_another_process_uses_stays_until_it_ends_or_is_killed(entry):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(entry)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "used\n"
    assert not remove(entry)
    assert use(entry)  # any number of processes
    process.kill()
    process.communicate()
    assert remove(entry)


def test_what_is_not_there_is_not_used_and_gone(tmp_path):
    assert use(tmp_path / "nothing") is None
    assert not is_used(tmp_path / "nothing")
    assert remove(tmp_path / "nothing")


def test_of_a_link_the_link_goes(entry):
    link = entry.with_name("link")
    link.symlink_to(entry)
    assert remove(link)
    assert entry.exists()
    assert not link.is_symlink()


def test_an_entry_in_use_is_there_however_often_others_remove_it(tmp_path):
    """One removes as fast as it can what four others make and use."""
    entry, end = tmp_path / "kind" / "entry", threading.Event()

    def work(_: int) -> bool:
        there = []
        for _ in range(300):
            used = use_new(entry)
            there.append(used is not None and entry.is_dir())
            if used:
                used.end()
        return all(there)

    def clean() -> None:
        while not end.is_set():
            remove(entry)

    with ThreadPoolExecutor(5) as threads:
        cleaned = threads.submit(clean)
        try:
            there = list(threads.map(work, range(4)))
        finally:
            end.set()
        cleaned.result()
    assert there == [True] * 4
