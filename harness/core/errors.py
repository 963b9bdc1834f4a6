"""The errors a user can mend: one line that says what is wrong, what was expected and what to do.

    Exception
      BenchError                      the command line prints its line and exits with code 2
        SuiteError                    a suite file, or a choice over it
        DataError                     a data set
        WeightsError                  pre-trained weights
        PackageError                  a Core ML package
          UnsupportedOperationError   an operation that the portable runtime does not know
        DamagedFileError              a file of this project that is not what was written
      CellFailedError                 recorded as the failure of its cell; the other cells go on

What the system refuses (OSError) and memory that is not there can be mended too: `told` has their lines. Anything else
that is raised is a bug and keeps its traceback. A reader of a stranger's file, which may raise anything, is asked where
the file is known, and what it raises becomes one of the above there.
"""

import re

from coreml_prune_bench.models.errors import (
    BenchError,
    CellFailedError,
    WeightsError,
    did_you_mean,
    fraction_hint,
)

__all__ = [
    "BenchError",
    "CellFailedError",
    "DamagedFileError",
    "DataError",
    "PackageError",
    "SuiteError",
    "UnsupportedOperationError",
    "WeightsError",
    "did_you_mean",
    "fraction_hint",
    "told",
]

_OUT_OF_MEMORY = re.compile(
    "out of memory|(can't|cannot|failed to) allocate memory|bad alloc|failed to map segment", re.IGNORECASE
)
"""How torch and ONNX Runtime, which have no class for it on a processor, and the loader of libraries call it."""


class SuiteError(BenchError):
    """A suite file, or a command-line choice over it, that cannot be run."""


class DataError(BenchError):
    """A data set that cannot be read: a missing folder or label, an image that does not decode."""


class PackageError(BenchError):
    """A Core ML package that cannot be read or does not fit what is asked of it."""


class UnsupportedOperationError(PackageError):
    """An ML program operation that the portable runtime does not know, named."""


class DamagedFileError(BenchError):
    """A file of this project that cannot be what was written: empty, half, changed, or no file at all."""


def told(error: BaseException) -> str | None:
    """The line for an error that the user can mend; None for a bug."""
    if isinstance(error, BenchError):
        return str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError) and _OUT_OF_MEMORY.search(str(error))
    ):
        return f"not enough memory{_first_line(error)}; what was finished is kept"
    if isinstance(error, OSError):
        why = error.strerror or str(error) or type(error).__name__
        files = " -> ".join(str(file) for file in (error.filename, error.filename2) if file is not None)
        return f"{why}{f': {files}' if files else ''}; what was finished is kept"
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f": {lines[0]}" if lines else ""
