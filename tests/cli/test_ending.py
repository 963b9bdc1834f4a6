"""How a command ends: exit codes, the last line, signals, and streams that take nothing more."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coreml_prune_bench.cli.ending import EXIT_CODES, end_with
from coreml_prune_bench.core.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ended(capsys):
    """Ends with a command in this process: (exit code, standard output, standard error)."""

    def call(command) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            end_with(command)
        return (end.value.code, *capsys.readouterr())

    return call


def raising(error: BaseException):
    def command() -> None:
        raise error

    return command


class _TorchOutOfMemoryError(RuntimeError):
    """As torch.OutOfMemoryError is one."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("no folder x"), "no folder x"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.json"), "No space left on device: a.json; what"),
        (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x" * 9), "File name too long: xxxxxxxxx; what"),
        (OSError(errno.ELOOP, os.strerror(errno.ELOOP), "loop"), "Too many levels of symbolic links: loop; what"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/dev/null/x"), "Not a directory: /dev/null/x; what"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a", None, "b"), "No such file: a -> b; what"),
        (OSError(errno.EFBIG, "File too large"), "File too large; what"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe", "worker"), "Broken pipe: worker; what"),
        (OSError("a reader's own words"), "a reader's own words; what"),
        (MemoryError(), "not enough memory; what"),
        (MemoryError("Unable to allocate 9 GiB"), "not enough memory: Unable to allocate 9 GiB; what"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nC++"), "not enough memory: DefaultCPU"),
        (
            ImportError("libtorch.so: failed to map segment from shared object"),
            "not enough memory: libtorch.so: failed",
        ),
        (_TorchOutOfMemoryError("CUDA out of memory. Tried to allocate"), "not enough memory: CUDA out of memory"),
        (ModuleNotFoundError("no timm", name="timm.models"), "this needs timm, which the base installation leaves out"),
        (DataError("a\nb \x1b[31m \u202e caf\udce9"), r"a\nb \x1b[31m \u202e caf\udce9"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_can_be_mended_is_one_line_and_exit_code_2(ended, error, line):
    code, output, errors = ended(raising(error))
    assert (code, output) == (2, "")
    (told,) = errors.splitlines()
    assert told.startswith(f"error: {line}")


def test_a_bug_keeps_its_traceback_and_says_how_to_report_it(ended):
    code, output, errors = ended(raising(KeyError("what nobody\x1b[2J expected")))
    assert (code, output) == (1, "")
    assert errors.startswith("Traceback (most recent call last):")
    assert r"KeyError: 'what nobody\x1b[2J expected'" in errors
    assert re.fullmatch("this is a bug in coreml-prune-bench .*: please report it .*", errors.splitlines()[-1])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted; what was finished is kept"),
        (SystemExit(130), 130, "error: interrupted; what was finished is kept"),  # as Typer tells of Ctrl-C
        (SystemExit(1), 1, ""),
        (SystemExit(2), 2, ""),
        (SystemExit(None), 0, ""),
    ],
)
def test_what_ends_the_program_itself_keeps_its_code(ended, error, code, line):
    found, _, errors = ended(raising(error))
    assert found == code
    assert errors.startswith(line)
    assert len(errors.splitlines()) == bool(line)


def test_the_handlers_of_signals_and_the_streams_are_what_they_were(ended):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)], sys.stdout
    ended(lambda: None)
    assert (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        sys.stdout,
    ) == before


# --- signals

_WAITING = """
import signal, sys, time
from pathlib import Path
from coreml_prune_bench.cli.ending import end_with
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background inherits as ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and one below nohup this

def work(swallow):
    unfinished = Path(sys.argv[1])
    try:
        unfinished.touch()
        if swallow:
            try:
                time.sleep(60)
            except BaseException:  # as some libraries have it where they call back
                pass
        time.sleep(60)
    finally:
        if sys.argv[2] == "endless":
            Path(unfinished.parent, "ending").touch()
            time.sleep(60)
        unfinished.unlink()

end_with(lambda: work(sys.argv[2] == "swallow"))
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WAITING, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "code", "swallow", "times"),
    [
        (signal.SIGINT, 130, "", 1),
        (signal.SIGTERM, 143, "", 1),
        (signal.SIGHUP, 129, "", 1),
        (signal.SIGTERM, 143, "swallow", 1),
        (signal.SIGTERM, 143, "", 2),
    ],
    ids=["ctrl-c", "term", "hup", "swallowed", "as timeout sends it"],
)
def test_a_signal_has_an_exit_code_and_a_line_and_leaves_nothing_half_written(tmp_path, number, code, swallow, times):
    process = start(tmp_path / "unfinished", swallow)
    wait_for(tmp_path / "unfinished")
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.01)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, list(tmp_path.iterdir())) == (code, "", [])
    (line,) = errors.splitlines()
    assert re.fullmatch("error: (interrupted|ended by SIG[A-Z]+); what was finished is kept, the same command .*", line)
    assert code in EXIT_CODES


def test_a_second_signal_ends_at_once(tmp_path):
    process = start(tmp_path / "unfinished", "endless")
    wait_for(tmp_path / "unfinished")
    process.send_signal(signal.SIGTERM)
    wait_for(tmp_path / "ending")
    time.sleep(0.6)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == -signal.SIGTERM


# --- streams

_PRINTING = """
import sys
from coreml_prune_bench.cli.ending import end_with
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter

def work():
    for number in range(int(sys.argv[1])):
        print("± a line of a table", number)
    for number in range(3):
        Reporter().say("what is going on ± " * 5000)
    with open(sys.argv[2], "w") as file:
        file.write("done")
    if sys.argv[3:]:
        raise BenchError("mend it")

end_with(work)
"""


@pytest.mark.parametrize(
    ("redirected", "lines", "code", "errors"),
    [
        ("2> /dev/full", 1, 0, ""),
        ("2> >(true)", 1, 0, ""),
        ("fails 2> /dev/full", 1, 2, ""),
        ("fails 2>&-", 1, 2, ""),
        ("> /dev/full", 1, 2, "error: standard output: No space left on device"),
        ("> /dev/full 2> /dev/full", 1, 2, ""),
        ("> >(true)", 100_000, 141, ""),
        (">&-", 1, 0, ""),
    ],
)
def test_streams_that_take_nothing_more_stop_no_work_and_raise_no_traceback(tmp_path, redirected, lines, code, errors):
    script = f'exec "$@" {redirected}'
    command = ["bash", "-c", script, "bash", sys.executable, "-c", _PRINTING, str(lines), str(tmp_path / "done")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    told = [line for line in done.stderr.splitlines() if not line.startswith("what is going on")]
    assert [line[: len(errors)] for line in told] == ([errors] if errors else [])
    assert (tmp_path / "done").exists() or redirected.startswith(">")


_CLOSED = """
import os, subprocess, sys
from coreml_prune_bench.cli.ending import end_with
from coreml_prune_bench.core.errors import BenchError

def work():
    assert not any(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    assert sys.stdin.read() == ""
    with open(sys.argv[1], "w") as file:  # which would be standard output itself
        os.write(1, b"what a library prints")
        os.write(2, b"what a library prints")
        subprocess.run(["sh", "-c", "echo a tool; echo warns >&2"], check=True)
        file.write("done")
    raise SystemExit(1) if sys.argv[2] == "no" else BenchError("mend it")

end_with(work)
"""


@pytest.mark.parametrize(("answer", "code"), [("no", 1), ("mend", 2)])
def test_closed_streams_change_no_exit_code_and_no_file_becomes_one(tmp_path, answer, code):
    command = [sys.executable, "-c", _CLOSED, str(tmp_path / "file"), answer]
    done = subprocess.run(["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", *command], cwd=ROOT, timeout=60)
    assert done.returncode == code
    assert (tmp_path / "file").read_text() == "done"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["gate", "--help"], ["suites"], ["cache"], ["table", "--results=results/few-images"]]
)
def test_a_command_whose_standard_output_is_closed_goes_on_without(arguments):
    command = ["bash", "-c", 'exec "$@" >&-', "bash", sys.executable, "run_bench.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_an_encoding_lacks_is_written_as_an_escape(tmp_path):
    command = [sys.executable, "-c", _PRINTING, "1", str(tmp_path / "done")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, b"\\xb1 a line of a table 0\n")


# --- told


def test_help_and_the_docs_name_every_exit_code(run_bench):
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    table = page.split("## Exit codes")[1].split("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == list(EXIT_CODES)
    _, output, _ = run_bench("--help")
    assert re.findall(r"\b\d+\b", output.split("Exit codes")[1]) == [*map(str, EXIT_CODES)]


def test_commands_print_and_tell_in_one_place_alone():
    """What is printed otherwise is not escaped, and a stream that takes nothing more ends it."""
    pattern = re.compile(r"typer\.echo|click\.echo|\bprint\(|sys\.std(out|err)\.write|Console\(|console\.print")
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("harness", "models")
        for path in (ROOT / folder).rglob("*.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    }
    answer_their_parent = {"harness/aimodel/unpack.py", "harness/data/hub_client.py"}
    stands_for_devicectl = "harness/testing/tools.py"
    ours = {"harness/cli/ending.py", "harness/cli/output.py", "harness/core/progress.py"}
    lay_out_into_a_text = {"harness/cli/overview.py", "harness/report/terminal.py"}
    assert found == {*ours, *answer_their_parent, stands_for_devicectl, *lay_out_into_a_text}
