"""What executes a Core ML package: `portable` on any machine, `coreml` on Apple hardware.

This module only says what the two have in common. It must import neither: each needs libraries that are heavy, or that
one machine has and another has not.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np


class RunnableModel(Protocol):
    """A loaded package. `predict` takes one sample of the declared shapes, `predict_batch` N of them."""

    @property
    def input_names(self) -> tuple[str, ...]: ...

    @property
    def output_names(self) -> tuple[str, ...]: ...

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]: ...

    def predict_batch(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...
