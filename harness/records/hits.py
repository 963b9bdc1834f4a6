"""Records read for a gate: of 300,000 numbers of predictions, only whether each image was right is wanted, and quickly.

`read_record` checks every number, a second's work for a gate. Here the layout that `Record.to_json` writes is read with
NumPy; anything else, such as half a file, is left to `read_record` and its messages.
"""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import DamagedFileError
from coreml_prune_bench.records.accuracy import Record, read_record
from coreml_prune_bench.records.predictions import Predictions
from coreml_prune_bench.records.schemas import content_of, read_as

Bits = NDArray[np.bool_]

_START = b'"predictions": {"labels":['
_MIDDLE = b'],"top5":[['
_END = b"]]}\n}\n"
_STAND_IN = b'"predictions": {"labels": [0], "top5": [[0]]}}'
"""What is checked in place of the predictions, so that a measured record has some."""

_LONGEST_NUMBER = 9
"""Digits; longer ones are no classes, and `read_record` says so."""

_OPEN = ord("[")
_COMMA = ord(",")
_BETWEEN_LISTS = (b"],", b",[")


def read_scored(path: Path) -> tuple[Record, Bits | None]:
    """A record without its predictions, and of them whether top-1 was the label, bool [images]; None if it failed.

    Raises BenchError as `read_record` does.
    """
    text = content_of(path, "record")
    head, start, predictions = text.partition(_START)
    labels, middle, top5 = predictions.partition(_MIDDLE)
    if start and middle and top5.endswith(_END):
        bits = _bits(b"," + labels, b"[" + top5.removesuffix(_END))
        if bits is not None:
            try:
                found = read_as(Record, "record", head + _STAND_IN, str(path))
                return found.model_copy(update={"predictions": None}), bits
            except DamagedFileError:
                pass  # for read_record to tell
    record = read_record(path)
    bits = right(record.predictions) if record.predictions else None
    return record.model_copy(update={"predictions": None}), bits


def right(predictions: Predictions) -> Bits:
    """Whether the best class is the label, bool [images]."""
    best = np.fromiter((top[0] for top in predictions.top5), np.int64, len(predictions.top5))
    return best == np.array(predictions.labels)


def _bits(labels: bytes, top5: bytes) -> Bits | None:
    """From ",7,7,12" and "[7,1,2],[1,7,2],[12,3,4]"; None unless that is their form, and of one length."""
    known, best = _known_labels(labels), _after(top5, _OPEN, _BETWEEN_LISTS)
    if known is None or best is None or not len(known) == len(best) == top5.count(b"],[") + 1:
        return None
    return known == best


@functools.lru_cache(maxsize=2)
def _known_labels(labels: bytes) -> NDArray[np.int64] | None:
    """Those of a data set are the same in all of its records."""
    return _after(labels, _COMMA, ())


def _after(text: bytes, mark: int, together: tuple[bytes, ...]) -> NDArray[np.int64] | None:
    """The numbers that follow each mark; None if there is another character, no number, or one too long.

    together: what may stand side by side without a number between.
    """
    characters = np.frombuffer(text + b",", np.uint8)
    between = characters - ord("0") > 9
    allowed = np.zeros(256, bool)
    allowed[[_COMMA, *b"".join(together)]] = True
    if not allowed[characters[between]].all():
        return None
    pairs = np.flatnonzero(between[:-1] & between[1:])
    alike = np.zeros(len(pairs), bool)
    for first, second in together:
        alike |= (characters[pairs] == first) & (characters[pairs + 1] == second)
    if not alike.all():
        return None
    places = np.flatnonzero(characters == mark) + 1
    places = places[places < len(characters)]
    numbers = np.zeros(len(places), np.int64)
    inside = np.ones(len(places), bool)
    for distance in range(len(characters)):
        digits = characters[np.minimum(places + distance, len(characters) - 1)] - ord("0")
        inside &= digits < 10
        if distance == 0 and not inside.all():
            return None
        if not inside.any():
            break
        if distance == _LONGEST_NUMBER:
            return None
        numbers = np.where(inside, 10 * numbers + digits, numbers)
    return numbers
