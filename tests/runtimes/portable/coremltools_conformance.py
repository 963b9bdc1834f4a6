"""A pytest plugin that runs coremltools' own tests of MIL operations over the portable runtime (`make conformance`).

The tests ask coremltools whether this is a Mac, and predict only there. The plugin answers for macOS 15, installs the
portable runtime where Core ML would be, keeps the tests of the ML program back end, and counts which of them really
asked for a prediction. What fails, and why, stands in a committed file: a listed test is expected to fail, so that the
run fails exactly when something fails that did not. It must change no test, no input and no tolerance.

    pytest -p tests.runtimes.portable.coremltools_conformance --pyargs coremltools...mil.ops.tests.iOS14 ...
"""

from __future__ import annotations

import gc
import json
import os
import random
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coreml_prune_bench.runtimes.portable import native
from coreml_prune_bench.runtimes.portable.cache import OFF_VARIABLE

RECORD = Path(__file__).resolve().parents[3] / "results" / "conformance" / "coremltools_op_tests.json"
_MACOS_VERSION = (15, 0)
_COREMLTOOLS = "/site-packages/coremltools/"
_OPERATIONS = "converters/mil/mil/ops/tests/"
_SEED = 0
_LONGEST_REASON = 240


@dataclass
class _Outcome:
    """What one test did. `asked`: it wanted a prediction. `predictions`: how many it got."""

    outcome: str = "passed"
    asked: bool = False
    predictions: int = 0
    reason: str = ""


@dataclass(eq=False)  # pytest keeps plugins in sets
class Conformance:
    """The run: outcomes by test, and what was expected. One of these is registered as the plugin proper."""

    expected: dict[str, str]
    record: Path
    update: bool
    deselected: int = 0
    outcomes: dict[str, _Outcome] = field(default_factory=dict)
    running: _Outcome = field(default_factory=_Outcome)

    # --- choosing and running

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        other = [item for item in items if _is_neural_network(item)]
        self.deselected = len(other)
        if other:
            config.hook.pytest_deselected(items=other)
            items[:] = [item for item in items if not _is_neural_network(item)]
        for item in items:
            reason = None if self.update else self.expected.get(_name(item))
            if reason is not None:
                item.add_marker(pytest.mark.xfail(reason=reason))

    def pytest_collection_finish(self) -> None:
        """`ct.convert` collects garbage at its end: without this it would walk all of torch and all tests each time."""
        gc.collect()
        gc.freeze()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self.running = self.outcomes[_name(item)] = _Outcome()
        # Inputs are drawn at random. The same ones whichever tests run before: or the list of failures means nothing.
        np.random.seed(_SEED)
        random.seed(_SEED)
        torch.manual_seed(_SEED)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        outcome = self.outcomes[_name(item)]
        if call.excinfo is not None:
            listed = hasattr(report, "wasxfail") and _name(item) in self.expected
            outcome.outcome = "failed" if report.failed or listed else "skipped"
            outcome.reason = _reason(call.excinfo.value)
        return report

    # --- what the stand-in is asked

    def watch(self, model: type[Any], predict: str) -> None:
        """Note when a test asks `model` for a prediction, and when it gets one."""
        original: Callable[..., Any] = getattr(model, predict)

        def watched(model_self: Any, *args: Any, **kwargs: Any) -> Any:
            spec = getattr(model_self, "_spec", None)
            if spec is not None and spec.WhichOneof("Type") != "mlProgram":
                pytest.skip("not an ML program")
            self.running.asked = True
            result = original(model_self, *args, **kwargs)
            self.running.predictions += 1
            return result

        setattr(model, predict, watched)

    # --- telling

    def counts(self) -> dict[str, int | float]:
        asked = [outcome for outcome in self.outcomes.values() if outcome.asked and outcome.outcome != "skipped"]
        passed = sum(outcome.outcome == "passed" for outcome in asked)
        rest = [outcome for outcome in self.outcomes.values() if not outcome.asked]
        return {
            "collected": len(self.outcomes) + self.deselected,
            "of another back end": self.deselected,
            "skipped by the tests": sum(outcome.outcome == "skipped" for outcome in self.outcomes.values()),
            "without a prediction, passed": sum(outcome.outcome == "passed" for outcome in rest),
            "without a prediction, failed": sum(outcome.outcome == "failed" for outcome in rest),
            "need a prediction": len(asked),
            "predicted": sum(outcome.predictions > 0 for outcome in asked),
            "passed": passed,
            "failed": len(asked) - passed,
            "percent passed": round(100 * passed / len(asked), 2) if asked else 0.0,
        }

    def failures(self) -> dict[str, str]:
        """Every failure's reason: the one on record, which a person may have put better, or what was raised."""
        failed = sorted(name for name, outcome in self.outcomes.items() if outcome.outcome == "failed")
        return {name: self.expected.get(name) or self.outcomes[name].reason for name in failed}

    def pytest_sessionfinish(self) -> None:
        if self.update:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            content = {"coremltools": _version(), "counts": self.counts(), "failures": self.failures()}
            self.record.write_text(json.dumps(content, indent=1) + "\n")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("coremltools' tests over the portable runtime")
        for what, count in self.counts().items():
            terminalreporter.write_line(f"{what:32} {count}")
        failures = self.failures()
        better = sorted(
            name for name, outcome in self.outcomes.items() if name in self.expected and outcome.outcome == "passed"
        )
        for name in better:
            terminalreporter.write_line(f"listed as failing, and passes: {name}")
        for name in failures.keys() - self.expected.keys() if not self.update else ():
            terminalreporter.write_line(f"not listed, and fails: {name}: {failures[name]}")
        if better:
            terminalreporter.write_line("write the list anew with --conformance-update")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("coremltools conformance")
    group.addoption("--conformance-record", type=Path, default=RECORD, help="the list of failures to compare with")
    group.addoption("--conformance-update", action="store_true", help="write that list from this run")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported: those read the platform then."""
    os.environ.setdefault(OFF_VARIABLE, "1")  # each test makes packages that never come again
    native.install(threads=1)
    _answer_for_macos()
    record: Path = config.getoption("--conformance-record")
    expected = json.loads(record.read_text())["failures"] if record.is_file() else {}
    conformance = Conformance(expected, record, config.getoption("--conformance-update"))
    from coremltools.models import CompiledMLModel, MLModel

    conformance.watch(MLModel, "predict")
    conformance.watch(CompiledMLModel, "predict")
    config.pluginmanager.register(conformance, "coremltools-conformance")


def _answer_for_macos() -> None:
    import coremltools._deps
    import coremltools.models.utils

    coremltools._deps._IS_MACOS = True
    coremltools.models.utils._is_macos = lambda: True
    coremltools.models.utils._macos_version = lambda: _MACOS_VERSION


def _is_neural_network(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return False
    return any(
        getattr(value, "backend", None) == "neuralnetwork"
        or (isinstance(value, tuple) and value[:1] == ("neuralnetwork",))
        for value in callspec.params.values()
    )


def _name(item: pytest.Item) -> str:
    """The test without the path to where coremltools is installed."""
    file = item.path.as_posix().rpartition(_COREMLTOOLS)[2].removeprefix(_OPERATIONS)
    return f"{file}::{item.nodeid.partition('::')[2]}"


def _reason(error: BaseException) -> str:
    """One line, without this machine's paths."""
    text = re.sub(r"\S+\.mlpackage: ", "", " ".join(str(error).split()))
    text = re.sub(r"/\S*/", "", text)
    return f"{type(error).__name__}: {text}"[:_LONGEST_REASON]


def _version() -> str:
    import coremltools

    return str(coremltools.__version__)
