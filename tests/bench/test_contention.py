"""A machine on which other programs run is seen as that, and said in one line."""

import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest

from coreml_prune_bench.bench import contention
from coreml_prune_bench.core.waiting import BRIEF, wait_briefly
from coreml_prune_bench.latency.mac import Process
from coreml_prune_bench.models.processors import cores, multiply_bfloat16, processors

measured = contention.busy_processors  # conftest puts another in its place


def stat(*busy_ticks: int) -> str:
    """/proc/stat of processors that were so busy, in each of the ways, and idle and waiting for disks besides."""
    lines = [f"cpu{number} {t} {t} {t} 900 900 {t} {t} {t} 5 5" for number, t in enumerate(busy_ticks)]
    return "\n".join(["cpu  1 1 1 1 1 1 1 1 1 1", *lines, "intr 5", "procs_running 3"])


@pytest.mark.parametrize(("mine", "expected"), [({0, 1}, 1.5), ({1}, 1.0), ({0, 1, 2}, 1.5)])
def test_the_processors_that_are_busy_of_those_that_this_process_may_use(monkeypatch, tmp_path, mine, expected):
    """In a second the first is half busy, the second whole, the third not, in all ways of being busy alike."""
    file, clock = tmp_path / "stat", iter([10.0, 11.0])
    file.write_text(stat(1000, 1000, 1000))
    hertz = os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(contention, "_STAT", file)
    monkeypatch.setattr(contention, "processors", lambda: frozenset(mine))
    monkeypatch.setattr(contention.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(contention.time, "process_time", lambda: 0.0)
    later = stat(1000 + hertz // 12, 1000 + hertz // 6, 1000)
    monkeypatch.setattr(contention.time, "sleep", lambda seconds: file.write_text(later))
    assert measured() == pytest.approx(expected, abs=0.15)  # a twelfth of a second in whole ticks


def test_where_there_is_no_proc_the_tools_of_the_system_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(contention, "_STAT", tmp_path / "none")
    monkeypatch.setattr(contention, "read_busy_processes", lambda: [Process(5, "a", 98.0), Process(6, "b", 52.0)])
    assert measured() == pytest.approx(1.5)


def spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="no /proc")
def test_a_program_that_is_busy_now_is_seen():
    process = multiprocessing.get_context("fork").Process(target=spin, args=(20,))
    process.start()
    try:
        assert measured() > 0.7
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize(
    ("busy", "chosen", "line"),
    [
        (0.5, True, None),
        (1.04, True, "other programs keep 1.0 of 2 processors busy: this takes longer than beside none"),
        (
            1.96,
            False,
            "other programs keep 2.0 of 2 processors busy: this takes longer than beside none, and training far "
            "longer, because torch was imported before coreml_prune_bench: import coreml_prune_bench first, or set "
            "OMP_WAIT_POLICY=PASSIVE",
        ),
    ],
)
def test_it_is_said_in_one_line(monkeypatch, busy, chosen, line):
    for name in (*BRIEF, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    if chosen:
        monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(contention, "busy_processors", lambda: busy)
    monkeypatch.setattr(contention, "processors", lambda: frozenset({0, 1}))
    said: list[str] = []
    contention.tell_if_busy(said.append)
    assert said == ([line] if line else [])
    wait_briefly()  # torch is loaded
    assert os.environ.get("GOMP_SPINCOUNT") is None


def test_a_run_says_it_once_and_only_where_there_is_something_to_measure(
    run_bench, monkeypatch, tiny_suite, tiny_run, tiny_results, tmp_path
):
    monkeypatch.setattr(contention, "busy_processors", lambda: 2.0)
    told = "other programs keep 2.0 of"
    for results, times in ((tiny_results, 0), (tmp_path, 1)):
        code, _, errors = run_bench("run", "--suite", tiny_suite, "--algorithms", "post-training", "--results", results)
        assert (code, errors.count(told)) == (0, times)
    code, _, errors = run_bench("build", "--suite", tiny_suite, "--algorithms", "post-training", "--results", tmp_path)
    assert (code, errors.count(told)) == (0, 1)


def test_a_process_counts_the_processors_that_it_may_use(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("macOS ties no process to processors")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert processors() == {min(before)}
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert processors() == before


def test_two_processors_of_one_core_are_one_core(monkeypatch, tmp_path):
    module = "coreml_prune_bench.models.processors"
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        (tmp_path / str(number)).write_text(siblings)
    monkeypatch.setattr(f"{module}._SIBLINGS", f"{tmp_path}/{{}}")
    monkeypatch.setattr(f"{module}.processors", lambda: frozenset({0, 2, 3, 9}))  # of the last nothing is known
    assert cores() == 3


@pytest.mark.parametrize(
    ("described", "multiply"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16 amx_tile\n\nprocessor\t: 1\nflags\t\t: fpu\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx512_bf16\nbugs\t\t: amx_bf16\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", False),  # Arm
        (None, False),  # not Linux
    ],
)
def test_linux_tells_whether_processors_multiply_bfloat16(described, multiply, monkeypatch, tmp_path):
    path = tmp_path / "cpuinfo"
    if described is not None:
        path.write_text(described)
    monkeypatch.setattr("coreml_prune_bench.models.processors._DESCRIBED", path)
    assert multiply_bfloat16() == multiply
