"""The errors of what is measured that a user can mend; the others stand in `coreml_prune_bench.core.errors`."""


class BenchError(Exception):
    """Something the user can mend. The message names the file, key or value, and what would be right."""


class WeightsError(BenchError):
    """Pre-trained weights that are missing, damaged or of another architecture."""


class CellFailedError(Exception):
    """What a network or package turns out not to be. Its cell is recorded as failed with this reason; others go on."""
