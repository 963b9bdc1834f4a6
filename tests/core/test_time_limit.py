"""A process that is ended, whatever it does."""

import math
import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from coreml_prune_bench.core import time_limit
from coreml_prune_bench.core.errors import BenchError, DataError
from coreml_prune_bench.core.time_limit import within

PATIENCE_S = 600.0


def refuse(line: str) -> None:
    raise DataError(line)


def break_down() -> None:
    raise ZeroDivisionError("a bug")


def test_what_a_function_returns_or_raises_is_returned_or_raised() -> None:
    assert within(None, math.gcd, 12, 18) == within(PATIENCE_S, math.gcd, 12, 18) == 6
    with pytest.raises(DataError, match=r"^one line$"):
        within(PATIENCE_S, refuse, "one line")
    with pytest.raises(ZeroDivisionError) as raised:
        within(PATIENCE_S, break_down)
    assert "in break_down" in raised.value.__notes__[0]


def test_what_takes_longer_is_ended() -> None:
    with pytest.raises(BenchError, match=r"^not done after 0.1 s \(--time-limit\), and ended$"):
        within(0.1, time.sleep, PATIENCE_S)


@pytest.mark.parametrize("seconds", [3e6, 1e300, math.inf])
def test_more_time_than_a_system_counts_at_once_is_waited_for(seconds: float) -> None:
    assert within(seconds, math.gcd, 12, 18) == 6


def test_what_is_waited_for_in_parts_ends_when_the_whole_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, "_AT_ONCE_S", 0.02)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    began_s = time.monotonic()
    assert not time_limit.answers(ours, 0.1)
    assert 0.09 < time.monotonic() - began_s < 5
    theirs.send("it comes")
    assert time_limit.answers(ours, 0.1)


def test_a_process_that_ends_by_itself_is_told() -> None:
    with pytest.raises(BenchError, match=r"has ended by itself \(exit code 3\)"):
        within(PATIENCE_S, os._exit, 3)


def test_nothing_computes_on_when_the_one_that_waits_is_killed() -> None:
    """The process that computes writes its id, and has the pipe open for as long as it lives."""
    program = (
        "import os, time; from coreml_prune_bench.core.time_limit import within;"
        f"within({PATIENCE_S}, exec, 'import os, time; os.write(1, b\"here\"); time.sleep({PATIENCE_S})')"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"here"
        process.kill()
        assert process.stdout.read() == b""  # nobody is left who could write
