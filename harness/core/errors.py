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

Anything else that is raised is a bug and keeps its traceback.
"""

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
]


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
