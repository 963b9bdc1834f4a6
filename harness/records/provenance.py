"""Where, when and with what a measurement was made."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from coreml_prune_bench.core.keys import package_versions
from coreml_prune_bench.records.accuracy import Provenance

_CODE = ("harness", "models", "pyproject.toml")
_PACKAGES = (
    "coremltools",
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "numpy",
    "pillow",
    "scikit-learn",
    "datasets",
)


def provenance(
    *,
    build_seconds: float | None = None,
    evaluate_seconds: float | None = None,
    trained_on: tuple[str, ...] = (),
) -> Provenance:
    """This machine and moment, with what the steps took and where networks were trained."""
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        host=platform.node(),
        os=platform.platform(),
        machine=platform.machine(),
        cpu_count=os.cpu_count() or 1,
        python=platform.python_version(),
        packages=package_versions(*_PACKAGES),
        git_commit=_git_commit(),
        build_seconds=build_seconds,
        evaluate_seconds=evaluate_seconds,
        trained_on=trained_on,
    )


def _git_commit() -> str | None:
    """The project's commit, with "+" if its code has changed since; None outside a git checkout."""
    folder = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", *_CODE) else "")
    except (OSError, subprocess.SubprocessError):
        return None
