"""The portable runtime in the place of Core ML's native module: when it goes in, and out again."""

import logging
import subprocess
import sys
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
from coremltools.models import MLModel

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.runtimes.portable import native
from tests.runtimes.portable.native.models import expected

NAME = "coremltools.libcoremlpython"


def test_announces_itself_once(caplog: pytest.LogCaptureFixture) -> None:
    native.uninstall()
    with caplog.at_level(logging.WARNING):
        native.install(threads=1, force=True)
        native.install(threads=1, force=True)
    (record,) = caplog.records
    assert "not from Core ML" in record.message


def test_uninstall_leaves_coremltools_as_it_was(scaled: Path) -> None:
    native.uninstall()
    try:
        assert ct.models.model._MLModelProxy is None
        assert NAME not in sys.modules
        assert not hasattr(ct, "libcoremlpython")
        with pytest.raises(Exception, match="only supported on macOS"):
            MLModel(str(scaled)).predict({"x": np.ones((1, 3))})
        native.uninstall()
    finally:
        native.install(threads=1, force=True)


def test_it_does_not_claim_to_be_a_mac() -> None:
    assert not ct.utils._is_macos()


def test_macos_is_refused_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    native.uninstall()
    try:
        monkeypatch.setattr(sys, "platform", "darwin")
        with pytest.raises(BenchError, match="use Core ML itself"):
            native.install()
        assert NAME not in sys.modules
        native.install(threads=1, force=True)
        assert NAME in sys.modules
    finally:
        monkeypatch.undo()
        native.uninstall()
        native.install(threads=1, force=True)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["before", "after"])
def test_before_and_after_coremltools_is_imported(order: str, scaled: Path) -> None:
    steps = ["native.install(threads=1, force=True)", "import coremltools as ct"]
    script = [
        "import sys",
        "from coreml_prune_bench.runtimes.portable import native",
        "assert 'coremltools' not in sys.modules",
        *(steps if order == "before" else reversed(steps)),
        f"print(ct.models.MLModel({str(scaled)!r}).predict({{'x': [[1, 2, 3]]}})['y'][0, 0])",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(script)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"{expected([[1, 2, 3]])[0, 0]}", done.stderr
    assert done.stderr.count("not from Core ML") == 1
