"""Where, when and with what a measurement was made."""

import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from coreml_prune_bench.records.accuracy import Provenance

_CODE = ("harness", "models", "pyproject.toml")
_THIS_FILE = Path("harness/records/provenance.py")
_PACKAGES = (
    "coreml-prune-bench",
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
    build_threads: int | None = None,
    predict_threads: int | None = None,
) -> Provenance:
    """This machine and moment, with what the steps took, where networks were trained and with how many threads."""
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        host=platform.node(),
        os=platform.platform(),
        machine=platform.machine(),
        cpu_count=os.cpu_count() or 1,
        python=platform.python_version(),
        packages=_installed_versions(),
        git_commit=_git_commit(),
        build_seconds=build_seconds,
        evaluate_seconds=evaluate_seconds,
        trained_on=trained_on,
        build_threads=build_threads,
        predict_threads=predict_threads,
    )


def _installed_versions() -> dict[str, str]:
    """Of the packages that results depend on, those that are there: the base installation leaves some out."""
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _git_commit() -> str | None:
    """The project's commit, with "+" if its code has changed since; None where this file is not in a checkout of it.

    An installed package may lie in a git repository of the user's, whose commit says nothing of it.
    """
    here = Path(__file__).resolve()
    root = here.parents[2]
    if here.relative_to(root) != _THIS_FILE:
        return None
    # A hook of git runs with variables that name the repository that it was called in.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, env=environment)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", *_CODE) else "")
    except (OSError, subprocess.SubprocessError):
        return None
