"""coremltools over the portable runtime, in every test of this folder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from coreml_prune_bench.runtimes.portable import native
from tests.packages import from_mil


@pytest.fixture(autouse=True, scope="module")
def installed() -> Iterator[None]:
    native.install(threads=1, force=True)
    yield
    native.uninstall()


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = W x + 1 on x [1, 3], with W [16, 3] in the weight file."""
    weight = np.arange(48, dtype=np.float32).reshape(16, 3)
    path = tmp_path_factory.mktemp("scaled") / "scaled.mlpackage"
    return from_mil(path, lambda x: mb.linear(x=x, weight=weight, bias=np.ones(16, np.float32), name="y"), (1, 3))
