"""How many samples a run takes, where many are shared out among threads: found out while they are predicted.

A few samples at a time keep a network's activations in the processor's cache, more of them read its weights less often:
which is faster depends on the network and the machine. What a sample gives is the same bits either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

_SIZES = (4, 2, 8, 1)
"""In the order in which they are tried: what is fastest for most first, as a small set of samples tries no more.

Larger ones would take the memory that this way saves.
"""
_TRIES = 2


class Sharing:
    """Of batches among so many threads. Sizes are tried on the first batches; then the fastest one stays."""

    def __init__(self, threads: int, clock: Callable[[], float] = perf_counter) -> None:
        self._threads = threads
        self._clock = clock
        self._samples = 0  # of the batches that sizes are tried on: the largest
        self._tried: dict[int, list[float]] = {}

    @contextmanager
    def parts(self, samples: int) -> Iterator[list[slice]]:
        """A batch in parts, to be predicted inside."""
        size = self._size(samples)
        started = self._clock()
        yield [slice(start, start + size) for start in range(0, samples, size)]
        if samples == self._samples:
            self._tried[size].append(self._clock() - started)

    def _size(self, samples: int) -> int:
        fitting = [size for size in _SIZES if size * self._threads <= samples] or [1]
        if samples > self._samples:
            self._samples = samples
            self._tried = {size: [] for size in fitting}
        if samples == self._samples:
            least = min(self._tried, key=lambda size: len(self._tried[size]))
            if len(self._tried[least]) < _TRIES:
                return least
        return min(fitting, key=lambda size: min(self._tried.get(size, ()), default=float("inf")))
