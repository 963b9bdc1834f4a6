"""Check 28 where the system is said to have Core AI: its runtime for the processor predicts in its place."""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency.self_test import core_ai
from coreml_prune_bench.latency.self_test.check import Here, NotApplicable
from coreml_prune_bench.runtimes import coreai

UNITS = ["all", "cpu_and_ne", "cpu_only"]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[dict[str, Any], list[str]]]:
    """Runs it in this process: what it noted, and what does not hold."""
    pytest.importorskip("coreai_torch", reason="without the extra coreai")
    loads = coreai.Model

    def on_the_processor(package: Path, compute_units: str) -> coreai.Model:
        return loads(package, compute_units=coreai.CPU_ONLY)

    def other_process(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(coreai, "Model", on_the_processor)
    monkeypatch.setattr(platform, "mac_ver", lambda: ("27.0", ("", "", ""), "arm64"))
    notes: dict[str, Any] = {}
    wrong: list[str] = []
    here = Here(tmp_path, tmp_path / "scratch", None, lambda k, v: notes.update({k: v}), wrong.append, other_process)

    def run() -> tuple[dict[str, Any], list[str]]:
        here.scratch.mkdir(exist_ok=True)
        core_ai.core_ai(here)
        return notes, wrong

    return run


def test_units_that_predict_alike_hold(check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_ai, "all_units_here", lambda asked, everything: UNITS)
    notes, wrong = check()
    assert wrong == []
    assert notes.pop("units") == list(notes) == UNITS
    assert all(0 < one["error"] < 0.01 and len(one["load_ns"]) == 2 for one in notes.values())


def test_a_unit_that_does_not_is_named(check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_ai, "all_units_here", lambda asked, everything: UNITS)
    predicted = core_ai._predicted

    def off(package: Path, unit: str) -> dict[str, Any]:
        found = predicted(package, unit)
        return found | {"scores": [1.05 * score for score in found["scores"]]} if unit == "cpu_and_ne" else found

    monkeypatch.setattr(core_ai, "_predicted", off)
    _, wrong = check()
    assert len(wrong) == 1
    assert wrong[0].startswith("cpu_and_ne: scores differ by 5")


def test_a_runtime_that_is_not_the_systems_is_told(check) -> None:
    notes, wrong = check()
    assert notes["units"] == ["cpu_only"]
    assert wrong == ["coreai-core takes its own runtime, which has the processor alone"]


def test_elsewhere_it_does_not_apply(check, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(asked: object, everything: object) -> list[str]:
        raise BenchError("needs coreai-core")

    monkeypatch.setattr(core_ai, "all_units_here", none)
    with pytest.raises(NotApplicable, match="needs coreai-core"):
        check()
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.6", ("", "", ""), "arm64"))
    with pytest.raises(NotApplicable, match="macOS 15 has no Core AI, macOS 27 has"):
        check()
