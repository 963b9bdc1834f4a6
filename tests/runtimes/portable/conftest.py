"""Random arrays for the operations."""

import numpy as np
import pytest

from tests.runtimes.portable.programs import Drawn


@pytest.fixture
def drawn(draw: np.random.Generator) -> Drawn:
    """Arrays of the shapes that it is called with, Float32, from the test's own stream."""
    return lambda *shape: draw.normal(0, 2, shape).astype(np.float32)
