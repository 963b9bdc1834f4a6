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

_FREE_BYTES = 3 << 30
"""Of address space: the libraries map half a gigabyte, and each of their threads more."""
_BYTES_PER_BYTE = 8
_FREE_S = 120.0
_BYTES_A_SECOND = 20_000_000

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
    memory = _FREE_BYTES + _BYTES_PER_BYTE * size
    # -P: beside the script lie modules whose names are others', too.
    command = [sys.executable, "-P", "-W", "ignore", unpack.__file__, str(bytecode), str(folder), str(memory)]
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_FREE_S + size / _BYTES_A_SECOND,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PackageError(f"{package}: Core AI's reader did not end within {error.timeout:.0f} s; {DAMAGED}") from None
    if ended.returncode:
        raise PackageError(f"{package}: Core AI cannot read its program: {_reason(ended)}")
    try:
        return dict(json.loads((folder / unpack.PROGRAM).read_bytes()))
    except (OSError, ValueError) as error:
        raise PackageError(f"{package}: what Core AI's reader wrote cannot be read: {error}") from error


def _reason(ended: subprocess.CompletedProcess[bytes]) -> str:
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    last = " ".join(said[-1].split()) if said else ""
    if ended.returncode < 0:
        try:
            name = signal.Signals(-ended.returncode).name
        except ValueError:
            name = f"signal {-ended.returncode}"
        return f"its process was ended by {name}; {DAMAGED}"
    return last or f"its process ended with code {ended.returncode}"
