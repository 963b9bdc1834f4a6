"""The errors of what is measured that a user can mend; the others stand in `coreml_prune_bench.core.errors`."""

from collections.abc import Iterable


class BenchError(Exception):
    """Something the user can mend. The message names the file, key or value, and what would be right."""


class WeightsError(BenchError):
    """Pre-trained weights that are missing, damaged or of another architecture."""


class CellFailedError(Exception):
    """What a network or package turns out not to be. Its cell is recorded as failed with this reason; others go on."""


def fraction_hint(value: object) -> str:
    """The end of a message where a fraction was expected and a percentage given, such as 50; else empty."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 < value <= 100:
        return ""
    return f"; it is a fraction: {value:g} % is {value / 100:g}"


def did_you_mean(name: str, known: Iterable[str], *, at_most: int = 1, however_far: bool = False) -> str:
    """The nearest of `known` as the end of a message, "; did you mean 'magnitude'?"; empty where nothing is near.

    however_far: the nearest even where it has nothing in common with `name`; empty only where nothing is known.
    """
    from difflib import get_close_matches  # only where something is wrong

    near = get_close_matches(name, list(known), n=at_most, cutoff=0.0 if however_far else 0.6)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
