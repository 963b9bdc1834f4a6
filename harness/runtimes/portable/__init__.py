"""Run an ML program, or a Core AI program, on any machine, by translating it to ONNX and running it in ONNX Runtime.

What shaped this back end:

- It reads the saved package and nothing else, so a number from it is a number of the file that ships.
- Each operation does what its definition in coremltools says, or the package is refused with the operation's name: no
  approximation, and no guess at an operation that is not registered.
- Weights are used as stored. In `float32` precision everything is computed in Float32, so a result is that of the
  stored weights and not of one device's rounding; in `float16` every result that the program types as Float16 is
  rounded to it. Neither says anything about speed on Apple hardware.
- A program is written for a batch of 1. It runs any batch at once where every operation provably keeps samples apart,
  and one sample after the other where not; both give the same numbers.
- Reading, translating and running stand apart: `mlprogram` knows no ONNX, `ops` and `translate` run nothing, `session`
  knows no operation. A new operation is one function with a decorator.

It must import neither coremltools, onnx nor onnxruntime before `load` is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coreml_prune_bench.runtimes.portable.graph import Precision
    from coreml_prune_bench.runtimes.portable.session import Model

__all__ = ["install", "load", "uninstall"]


def load(
    path: str | Path,
    *,
    function: str | None = None,
    precision: Precision = "float32",
    threads: int | None = None,
    many: bool = False,
    cache: bool = True,
) -> Model:
    """Read, translate and prepare a function (None: the default one) of the `.mlpackage` or `.aimodel` at
    `path`.

    `threads` is the number of threads that one prediction may use; None is one for each core that the process may use.
    `many` is for `predict_batch` over many samples: threads predict some each, side by side, instead of sharing each
    prediction. Results are the same bits.
    With `cache`, the translation is kept in the user's cache folder, where the next process finds it.

    Raises PackageError where the package cannot be read, UnsupportedOperationError where an operation is not known.
    """
    from coreml_prune_bench.runtimes.portable.session import Model

    return Model(path, function=function, precision=precision, threads=threads, many=many, cached=cache)


def install(*, precision: Precision = "float32", threads: int | None = None, force: bool = False) -> None:
    """Let coremltools itself predict on this machine: see `coreml_prune_bench.runtimes.portable.native`."""
    from coreml_prune_bench.runtimes.portable import native

    native.install(precision=precision, threads=threads, force=force)


def uninstall() -> None:
    """Undo `install`."""
    from coreml_prune_bench.runtimes.portable import native

    native.uninstall()
