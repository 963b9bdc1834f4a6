"""How the threads of OpenMP wait for each other: briefly, chosen before torch is loaded, which brings it.

A parallel loop ends with its slowest thread; the others spin meanwhile, for 300,000 turns in GNU's OpenMP (torch on
Linux, scikit-learn) and 200 ms in LLVM's (torch on macOS), and go to sleep then. Beside another busy program the thread
that they wait for may have no core, and those that spin keep it from one. How they wait changes no result, which the
number of threads does: so it is this that is chosen. docs/training.md has what it costs and saves.
"""

import os
import sys

BRIEF = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
"""Environment variables: turns, of GNU's OpenMP; milliseconds, of LLVM's and Intel's."""

_DECIDES = ("OMP_WAIT_POLICY", "KMP_LIBRARY", *BRIEF)


def wait_briefly() -> None:
    """Set BRIEF, for this process and those it starts, unless the user has set a variable that decides it.

    Not where torch is loaded already: OpenMP reads them once, when it is.
    """
    if not is_chosen() and "torch" not in sys.modules:
        os.environ.update(BRIEF)


def is_chosen() -> bool:
    """Whether anybody has said how to wait, so that nothing is as OpenMP has it by itself."""
    return any(os.environ.get(name) for name in _DECIDES)
