"""What coremltools 9.0 cannot do with some networks, done in another way while a block runs.

Each mend is of one defect and names it; with a coremltools that has it mended, the mend goes.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil.frontend.torch import ops as torch_frontend
from torch import Tensor


@contextlib.contextmanager
def mended_converter() -> Iterator[None]:
    """For tracing and converting: attention, and the key's bias of swin_v2."""

    class Integer(int):
        """It takes int() of arrays of one element, which NumPy 2.4 refuses."""

        def __new__(cls, value: Any) -> int:  # type: ignore[misc]
            return int(np.asarray(value).item())

    cast, zero = torch_frontend._cast, torch.Tensor.zero_
    torch_frontend._cast = lambda context, node, dtype, name: cast(
        context, node, Integer if dtype is int else dtype, name
    )
    # It does not know zero_, with which swin_v2 takes the key's bias away.
    torch.Tensor.zero_ = _zeros_copied  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        torch_frontend._cast, torch.Tensor.zero_ = cast, zero  # type: ignore[method-assign]


def _zeros_copied(tensor: Tensor) -> Tensor:
    return tensor.copy_(torch.zeros_like(tensor))
