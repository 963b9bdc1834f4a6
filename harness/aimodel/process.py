"""The process that reads a `.aimodel` for us: started, bounded in memory and time, and what it found read back."""

from __future__ import annotations

import importlib.util
import json
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from coreml_prune_bench.aimodel import unpack
from coreml_prune_bench.core.errors import BenchError, PackageError

_FREE_BYTES = 2 << 30
"""Of address space: the libraries map 0.2 GiB."""
_BYTES_PER_BYTE = 8
_FREE_PROCESSOR_S, _FREE_S = 20, 60.0
_BYTES_A_SECOND = 20_000_000
_FREE_FILE_BYTES = 64 << 20
"""Of each file that is written: constants, of which a bit can become a byte, and the program in words."""
_MOST_PROGRAM_BYTES = 64 << 20
_TOLD_BYTES = 1 << 16
"""Of what is written to standard error the end is read."""
_MOST_LETTERS = 500

DAMAGED = "the package is damaged, build it again"


def require_coreai() -> None:
    """Raises BenchError where Apple's packages for Core AI are not installed, and says whether they can be."""
    if importlib.util.find_spec("coreai") is not None:
        return
    has_wheel = (sys.platform, platform.machine()) in (("linux", "x86_64"), ("darwin", "arm64"))
    raise BenchError(
        "a .aimodel needs coreai-core, which the base installation leaves out: pip install 'coreml-prune-bench[coreai]'"
        if has_wheel
        else "a .aimodel needs coreai-core, which Apple makes for Linux on x86-64 (glibc 2.34 or newer) and for Macs "
        f"with Apple silicon, not for {platform.system()} on {platform.machine()}"
    )


def unpacked(package: Path, bytecode: Path, folder: Path) -> dict[str, Any]:
    """What `unpack` wrote of the program in `bytecode` to `folder`. Raises PackageError where it cannot be read."""
    require_coreai()
    size = bytecode.stat().st_size
    limits = [
        _FREE_BYTES + _BYTES_PER_BYTE * size,
        _FREE_PROCESSOR_S + size // _BYTES_A_SECOND,
        _FREE_FILE_BYTES + _BYTES_PER_BYTE * size,
    ]
    # -P: beside the script lie modules whose names are others', too.
    command = [sys.executable, "-P", "-W", "ignore", unpack.__file__, str(bytecode), str(folder)]
    told = folder / "told.txt"
    try:
        with told.open("wb") as file:  # and no pipe: the limit of what is written counts there, too
            ended = subprocess.run(
                [*command, *map(str, limits)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                timeout=_FREE_S + size / _BYTES_A_SECOND,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise PackageError(f"{package}: Core AI's reader did not end within {error.timeout:.0f} s; {DAMAGED}") from None
    if ended.returncode:
        raise PackageError(f"{package}: Core AI cannot read its program: {_reason(ended.returncode, told)}")
    program = folder / unpack.PROGRAM
    try:
        if program.stat().st_size > _MOST_PROGRAM_BYTES:
            raise PackageError(f"{package}: its program takes more than {_MOST_PROGRAM_BYTES >> 20} MiB in words")
        return dict(json.loads(program.read_bytes()))
    except (OSError, ValueError) as error:
        raise PackageError(f"{package}: what Core AI's reader wrote cannot be read: {error}") from error


def _reason(code: int, told: Path) -> str:
    """Why the process ended with that code, negative for a signal. told: what it wrote to standard error."""
    with told.open("rb") as file:
        file.seek(max(0, told.stat().st_size - _TOLD_BYTES))
        written = file.read().decode(errors="replace").splitlines()
    lines = [" ".join(line.split())[:_MOST_LETTERS] for line in written if line.strip()]
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        took = f" after {_FREE_PROCESSOR_S} s and more" if name == "SIGXCPU" else ""
        said = next((f" ({line})" for line in lines if "error: " in line), "")
        return f"its process was ended by {name}{took}{said}; {DAMAGED}"
    last = lines[-1] if lines else f"its process ended with code {code}"
    return f"{last}; {DAMAGED}" if code == unpack.ILLEGIBLE else last
