"""Models converted for the tests of coremltools over the portable runtime, and what one of them answers."""

from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.models import MLModel


def expected(x: Any) -> np.ndarray:
    """What the package of the fixture `scaled` answers."""
    return np.asarray(x, np.float32) @ np.arange(48, dtype=np.float32).reshape(16, 3).T + 1


def convert(build: Any, *specs: mb.TensorSpec, **options: Any) -> MLModel:
    """iOS18, with coremltools' own passes, loaded as `ct.convert` does at its end."""
    program = mb.program(input_specs=list(specs), opset_version=ct.target.iOS18)(build)
    return ct.convert(program, **({"minimum_deployment_target": ct.target.iOS18} | options))
