"""Matrix products and einsum, against NumPy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from coreml_prune_bench.core.errors import UnsupportedOperationError
from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_mil
from tests.runtimes.portable.programs import Drawn, Operations, all_close, run


def test_matrix_products_of_every_rank_and_type(drawn: Drawn, tmp_path: Path) -> None:
    x, y = drawn(3, 1, 4, 5), drawn(2, 5, 6)
    whole = np.arange(24, dtype=np.int32).reshape(6, 4)
    other, vector = drawn(4, 6), drawn(5)
    operations: Operations = {
        "broadcast": lambda x, y: mb.matmul(x=x, y=y),
        "both transposed": lambda x, y: mb.matmul(x=y, y=x, transpose_x=True, transpose_y=True),
        "vector": lambda x, y: mb.matmul(x=vector, y=y),
        "integers transposed": lambda x, y: mb.matmul(x=y, y=whole.T.copy(), transpose_y=True),
        "linear of integers": lambda x, y: mb.linear(x=y, weight=whole.T, bias=np.array([1, 2, 3, 4], np.int32)),
        "linear of a vector": lambda x, y: mb.linear(x=mb.reduce_sum(x=y, axes=[0, 1]), weight=other),
    }
    results = run(tmp_path, operations, x, y)
    references = {
        "broadcast": x @ y,
        "both transposed": y.swapaxes(1, 2) @ x.swapaxes(2, 3),
        "vector": vector @ y,
        "integers transposed": y @ whole,
        "linear of integers": y @ whole + [1, 2, 3, 4],
        "linear of a vector": y.sum((0, 1)) @ other.T,
    }
    all_close(results, references, tolerance=1e-4)


def test_integers_by_fractions_are_refused(tmp_path: Path) -> None:
    half = np.full((2, 2), 0.5, np.float32)
    path = from_mil(tmp_path / "m.mlpackage", lambda x: mb.matmul(x=x, y=half), (1, 2), dtype=types.int32)
    with pytest.raises(UnsupportedOperationError, match="by fractions"):
        load(path)


@pytest.mark.parametrize(
    ("equation", "x_shape", "y_shape"),
    [
        ("nchw,nwhu->nchu", (2, 3, 4, 5), (2, 5, 4, 6)),
        ("bOat, btaq -> bOaq", (1, 3, 4, 5), (2, 5, 1, 6)),
        ("vnm,mno->vno", (3, 1, 5), (5, 4, 2)),
    ],
)
def test_einsum_is_numpys(
    equation: str, x_shape: Sequence[int], y_shape: Sequence[int], drawn: Drawn, tmp_path: Path
) -> None:
    x, y = drawn(*x_shape), drawn(*y_shape)
    plain = equation.replace(" ", "")
    results = run(tmp_path, {"einsum": lambda x, y: mb.einsum(values=(x, y), equation=plain)}, x, y)
    all_close(results, {"einsum": np.einsum(plain, x, y)})
