"""Random arrays for the operations, and a process for packages that may end one."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.runtimes.portable.attempts import Attempts
from tests.runtimes.portable.programs import Drawn


@pytest.fixture
def drawn(draw: np.random.Generator) -> Drawn:
    """Arrays of the shapes that it is called with, Float32, from the test's own stream."""
    return lambda *shape: draw.normal(0, 2, shape).astype(np.float32)


@pytest.fixture(scope="session")
def attempts() -> Iterator[Attempts]:
    attempts = Attempts()
    yield attempts
    attempts.close()
