"""What takes seconds says so on a terminal before it imports anything."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("command", "first"),
    [
        (("accuracy", "no.mlpackage", "--data", "digits"), "accuracy: starting"),
        (("report", "no/such/folder/out.html"), "report: starting"),
        (("report", "--help"), ""),
        (("table", "--results", "no/such/folder"), ""),
    ],
)
def test_a_command_that_takes_seconds_says_its_name_first(command: tuple[str, ...], first: str) -> None:
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "run_bench.py", *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    told = b""
    try:
        while part := os.read(ours, 4096):
            told += part
    except OSError:  # Linux: all that was written is read
        pass
    os.close(ours)
    assert told.decode().startswith(first)
    assert ("starting" in told.decode()) == bool(first)
