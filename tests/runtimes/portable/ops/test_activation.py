"""Activations with a value a channel."""

from pathlib import Path

import numpy as np
from coremltools.converters.mil import Builder as mb

from tests.runtimes.portable.programs import Drawn, Operations, all_close, run


def test_activations_per_channel(drawn: Drawn, tmp_path: Path) -> None:
    x = drawn(2, 3, 4, 4) * 20
    alpha, beta = drawn(3), drawn(3)
    operations: Operations = {
        "softplus_parametric": lambda x: mb.softplus_parametric(x=x, alpha=alpha, beta=beta),
        "softplus": lambda x: mb.softplus(x=mb.mul(x=x, y=10.0)),  # beyond what exp holds
    }
    channel = (3, 1, 1)
    references = {
        "softplus_parametric": alpha.reshape(channel) * np.logaddexp(0, beta.reshape(channel) * x),
        "softplus": np.logaddexp(0, 10 * x),
    }
    all_close(run(tmp_path, operations, x), references)
