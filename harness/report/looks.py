"""How an algorithm looks, for ever: the number of its series, from which a chart takes colour and form of its marks.

The number follows from the name alone, so that an algorithm looks the same in every report, whatever stands beside it.
"""

import hashlib
from collections.abc import Iterable

LOOKS = 56
"""Of seven colours and eight forms, no two of which are the same in both."""

OTHER_PACKAGES = "other packages"

_KNOWN = (
    "not pruned",
    "MagnitudePruner",
    "SparseGPT",
    "Post-training pruning",
    "Blockwise reconstruction",
    "Core AI MagnitudePruner",
    OTHER_PACKAGES,
)
"""A new one is put at the end; what stands here keeps its place."""
_FIRST_FREE = 8


def series_of_names(names: Iterable[str]) -> dict[str, int]:
    """The series of each name, by number. Of others than the known a hash says it; two of one hash stand beside each
    other, in the order of their names."""
    unique = sorted(set(names))
    found = {name: _KNOWN.index(name) for name in unique if name in _KNOWN}
    free = LOOKS - _FIRST_FREE
    for name in unique:
        if name not in _KNOWN:
            start = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:4], "big")
            numbers = [_FIRST_FREE + (start + step) % free for step in range(free)]
            found[name] = next((one for one in numbers if one not in found.values()), numbers[0])
    return dict(sorted(found.items(), key=lambda item: item[1]))
