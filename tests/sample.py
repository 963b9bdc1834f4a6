"""The sample images and weights, where they lie beside the project."""

from pathlib import Path

import pytest

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_sample = pytest.mark.skipif(
    not SAMPLE.is_dir(), reason="the sample images and weights are not beside the project"
)
