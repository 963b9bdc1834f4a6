"""The errors a user can mend: one line that says what is wrong, what was expected and what to do.

The command line prints the line and exits with code 2. Anything else that is raised is a bug and keeps its traceback.
"""


class BenchError(Exception):
    """Something the user can mend. The message names the file, key or value, and what would be right."""


class SuiteError(BenchError):
    """A suite file, or a command-line choice over it, that cannot be run."""


class DataError(BenchError):
    """A data set that cannot be read: a missing folder or label, an image that does not decode."""


class WeightsError(BenchError):
    """Pre-trained weights that are missing, damaged or of another architecture."""


class PackageError(BenchError):
    """A Core ML package that cannot be read or does not fit what is asked of it."""


class UnsupportedOperationError(PackageError):
    """An ML program operation that the portable runtime does not know, named."""


class CellFailedError(Exception):
    """What a network or package turns out not to be. Its cell is recorded as failed with this reason; others go on."""
