"""How an algorithm looks, for ever: the number of its series, and the colour and the form that a series has.

The number follows from the name alone, so that an algorithm looks the same in every report, whatever stands beside it.
A series is told by the form of its marks first, and by their colour second.
"""

import hashlib
from collections.abc import Iterable

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

# After Okabe and Ito, whom most colour-blind readers can follow; dark enough for white. Seven, beside eight forms of
# marks, so that no two of 56 series look the same.
_COLORS = ("#222222", "#0072b2", "#c65300", "#00845f", "#b4588d", "#7a6200", "#6a3d9a")
_COLORS_ON_BLACK = ("#e6e6e6", "#56b4e9", "#f0883e", "#3fcf9f", "#e79ac6", "#e0c24a", "#b79ae8")
_FORMS = (  # paths of SVG around (0, 0), of about the same area each
    "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",  # circle
    "M-.85,-.85L.85,-.85L.85,.85L-.85,.85Z",  # square
    "M0,-1.35L1.17,.67L-1.17,.67Z",  # triangle
    "M1.3,0L0,1.3L-1.3,0L0,-1.3Z",  # diamond
    "M0,1.35L1.17,-.67L-1.17,-.67Z",  # triangle on its head
    "M.42,-.42L.42,-1.25L-.42,-1.25L-.42,-.42L-1.25,-.42L-1.25,.42L-.42,.42L-.42,1.25L.42,1.25L.42,.42L1.25,.42L1.25,-.42Z",
    "M0,-1.2L1.14,-.37L.71,.97L-.71,.97L-1.14,-.37Z",  # pentagon
    "M0,-1.5L.36,-.5L1.43,-.46L.59,.19L.88,1.21L0,.62L-.88,1.21L-.59,.19L-1.43,-.46L-.36,-.5Z",  # star
)
LOOKS = len(_COLORS) * len(_FORMS)
"""No two of these series are the same in both colour and form."""


def color(series: int, *, on_black: bool = False) -> str:
    """A series' colour, as #rrggbb."""
    return (_COLORS_ON_BLACK if on_black else _COLORS)[series % len(_COLORS)]


def form(series: int) -> str:
    """The outline of a series' mark: an SVG path around (0, 0), about 2 wide."""
    return _FORMS[series % len(_FORMS)]


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
