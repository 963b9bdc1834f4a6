"""A pytest fixture that gates a package in a user's own test suite:

    def test_model(coreml_gate):
        coreml_gate("model.mlpackage", data="imagefolder:images", baseline="baseline.json")

`pytest --coreml-gate-update` writes what is measured into the baseline files instead. pytest loads this module in every
session of an environment that has the project installed, so it imports nothing heavy before a test asks.
"""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pytest

from coreml_prune_bench.core.errors import told
from coreml_prune_bench.core.escaping import printable
from coreml_prune_bench.core.extras import extras_named

if TYPE_CHECKING:
    from coreml_prune_bench.gating.checks import Report, Row
    from coreml_prune_bench.records.predictions import Precision

_UPDATE = "--coreml-gate-update"


class CannotTellWarning(UserWarning):
    """A gate passed because nobody can tell: there is too little data for a verdict."""


class CoremlGate:
    """What the fixture is: call it with a package."""

    def __init__(self, *, update: bool) -> None:
        self._update = update

    def __call__(
        self,
        package: str | os.PathLike[str],
        *,
        data: str,
        baseline: str | os.PathLike[str],
        row: str | None = None,
        rules: str | os.PathLike[str] | None = None,
        precision: "Precision" = "float32",
        class_map: str | os.PathLike[str] | None = None,
        skip_bad_images: bool = False,
    ) -> "Row | None":
        """Evaluate `package` in the portable runtime and fail the test if it is worse than the baseline.

        data: as `--data` of the command line. baseline: a file, a results folder, a git revision, or another package.
        row: which row of the baseline, the package's name without its suffix unless given. rules: a rules file.
        class_map: a file, as `--class-map` of the command line. Returns the row with its verdict and checks, None after
        an update.
        """
        path = Path(package)
        name = row or path.stem
        settings: _Settings = {
            "data": data,
            "row": name,
            "precision": precision,
            "class_map": Path(class_map) if class_map else None,
            "skip_bad_images": skip_bad_images,
        }
        try:
            with extras_named():
                report = self._report(path, os.fspath(baseline), Path(rules) if rules else None, settings)
        except Exception as error:
            problem = told(error)
            if problem is None:
                raise
        else:
            return _judged(report) if report else None
        # Outside of `except`, whose context pytest would print.
        pytest.fail(printable(f"coreml_gate: {problem}"), pytrace=False)

    def _report(self, package: Path, baseline: str, rules: Path | None, settings: "_Settings") -> "Report | None":
        from coreml_prune_bench.gating.package import gate_package, update_baseline

        if self._update and not baseline.endswith(".mlpackage"):
            update_baseline(package, baseline=Path(baseline), **settings)
            return None
        return gate_package(package, baseline=baseline, rules=rules, **settings)


class _Settings(TypedDict):
    data: str
    row: str
    precision: "Precision"
    class_map: Path | None
    skip_bad_images: bool


def _judged(report: "Report") -> "Row":
    """The report's one row; fails the test if it has to."""
    from coreml_prune_bench.gating.reports import told_row

    (row,) = report.rows
    line = printable(f"{row.key.name}: {told_row(row)}")
    if report.exit_code:
        pytest.fail(f"coreml_gate: {line}", pytrace=False)
    if row.verdict == "cannot tell":
        warnings.warn(CannotTellWarning(line), stacklevel=3)
    return row


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("coreml_gate").addoption(
        _UPDATE, action="store_true", help="write what coreml_gate measures into its baseline files, compare nothing"
    )


@pytest.fixture
def coreml_gate(request: pytest.FixtureRequest) -> CoremlGate:
    """Gates a Core ML package against a baseline: see coreml_prune_bench.gating.pytest_plugin."""
    return CoremlGate(update=request.config.getoption(_UPDATE))
