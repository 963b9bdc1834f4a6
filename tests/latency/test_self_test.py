"""The self-test over the stand-in: it holds, each lie is caught by its check, and what it writes is a contract."""

import dataclasses
import functools
import json
import multiprocessing
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.latency.self_test.check import CHECKS, Check, Found
from coreml_prune_bench.latency.self_test.run import SelfTest, SelfTests, read_self_test
from coreml_prune_bench.latency.self_test.scrub import scrubbed
from coreml_prune_bench.testing import Latency, Script
from coreml_prune_bench.testing.contract import script_from
from coreml_prune_bench.testing.devices import FOLDER_VARIABLE, connect, iphone
from coreml_prune_bench.testing.lies import LIES, Lie, plausible
from coreml_prune_bench.testing.system import enter, preload

CONTRACT = Path(__file__).parent / "self_test_of_the_stand_in.json"
QUICK = (1, 2, 3, 6, 12, 13, 15, 22, 24, 26)
TORCH = 20
"""The check that imports torch, which takes a while."""
DEVICE = "Test iPhone"


@pytest.fixture(scope="module")
def server() -> Iterator[ProcessPoolExecutor]:
    """A process that has imported everything and has no threads: those that it forks start at once."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), preload) as pool:
        yield pool


@pytest.fixture(scope="module")
def run(server: ProcessPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SelfTest]:
    """Takes checks, by number (all: none), on a scripted Mac; None: on this machine as it is."""
    packages = tmp_path_factory.mktemp("self-test") / "packages"  # made by the first check that needs them

    def take(
        script: Script | None,
        *numbers: int,
        out: Path | None = None,
        device: str | None = None,
        enter_by: Callable[[], None] | None = None,
        limit_s: float | None = None,
    ) -> SelfTest:
        enters = enter_by or (script and functools.partial(enter, script))
        checks = [check for check in CHECKS if not numbers or check.number in numbers]
        checks = [dataclasses.replace(check, limit_s=limit_s or check.limit_s) for check in checks]
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", FOLDER_VARIABLE)}
        return server.submit(_take, environment, enters, packages, device, out, checks).result()

    return take


def _take(
    environment: dict[str, str],
    enters: Callable[[], None] | None,
    packages: Path,
    device: str | None,
    out: Path | None,
    checks: list[Check],
) -> SelfTest:
    os.environ.pop(FOLDER_VARIABLE, None)
    os.environ.update(environment)
    tests = SelfTests(enter=enters, start="fork", packages=packages, device=device, environment={"test": "stand-in"})
    with Reporter().steps("self-test", 1) as steps:
        return tests.run(steps, out, checks)


def outcomes(found: SelfTest) -> dict[int, str]:
    return {one.number: one.outcome for one in found.checks}


def home(folder: Path, name: str = "a home") -> str:
    (folder / name).mkdir()
    return str(folder / name)


WITHOUT_TORCH = [check.number for check in CHECKS if check.number != TORCH]


def test_a_plausible_mac_passes_and_is_as_the_contract_says(run, tmp_path: Path) -> None:
    """The raw values too: a change of the stand-in shows here."""
    found = run(plausible(home(tmp_path)), *WITHOUT_TORCH, out=tmp_path / "out.json")
    assert {number for number, outcome in outcomes(found).items() if outcome != "holds"} == {26, 27, 28}
    assert all("no device was named" in (one.reason or "") for one in found.checks[-3:-1])
    assert read_self_test(tmp_path / "out.json") == found
    expected = {one.number: one for one in read_self_test(CONTRACT).checks}
    for one in found.checks:
        assert one.outcome == expected[one.number].outcome, one.name
        assert alike(one.values, expected[one.number].values), f"{one.name}: {one.values}"


def test_the_stand_in_is_what_a_contract_says(run, tmp_path: Path) -> None:
    """Read back: another Mac's file makes a stand-in on which the self-test finds that Mac's values."""
    other = dataclasses.replace(
        plausible(home(tmp_path, "first")),
        arrays=("int8", "int32", "float32", "float64"),
        cold_load_ms=1234.0,
        cached_load_ms=56.0,
        neural_engine_cores=32,
        engines=2,
        rewake_ms=260.0,
        qos_factors={"utility": 1.25, "background": 4.0},
        latencies={**plausible().latencies, "heavy": Latency(ms=2.0, noise=0)},
    )
    numbers = (3, 11, 15, 17, 18, 19)
    first = run(other, *numbers)
    second = run(script_from(first, home(tmp_path, "second")), *numbers)
    assert (
        outcomes(first)
        == outcomes(second)
        == {3: "holds", 11: "holds", 15: "holds", 17: "holds", 18: "holds", 19: "does not"}
    )
    for one, two in zip(first.checks, second.checks, strict=True):
        assert alike(one.values, two.values), one.name
    assert "262 ms" in (second.checks[-1].reason or "")


def its_check(lie: Lie, run, folder: Path) -> Found:
    return run(lie.of(plausible(home(folder, str(LIES.index(lie))))), lie.check, device=DEVICE).checks[0]


def test_every_check_has_a_lie() -> None:
    assert len(LIES) >= 15
    others = {27, 28}  # Xcode's tools and macOS 27 have tests of their own
    assert {lie.check for lie in LIES} == {check.number for check in CHECKS} - others


def test_lies_are_caught_by_their_checks(run, tmp_path: Path) -> None:
    """Those whose checks are quick; the others, and that no other check changes, are in the slow one."""
    told = {lie.told: its_check(lie, run, tmp_path) for lie in LIES if lie.check in QUICK}
    assert {name for name, found in told.items() if found.outcome != "does not"} == set()
    assert "5.64e+03 s further" in (told["the clock stops for 94 minutes"].reason or "")


@pytest.mark.slow
@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.told)
def test_and_by_no_other(lie: Lie, run, tmp_path: Path) -> None:
    numbers = [check.number for check in CHECKS if check.number != TORCH or lie.check == TORCH]
    found = run(lie.of(plausible(home(tmp_path))), *numbers)
    if lie.check == 26:
        found = found.model_copy(update={"checks": (*found.checks[:-3], its_check(lie, run, tmp_path))})
    assert [one.number for one in found.checks if one.outcome == "does not"] == [lie.check]
    if lie.check == 9:
        assert "SIGSEGV" in (found.checks[8].reason or "")


@pytest.mark.parametrize(
    ("refuses", "outcome"), [("Prediction", "does not"), pytest.param(None, "holds", marks=pytest.mark.slow)]
)
def test_a_connected_device(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: str | None, outcome: str
) -> None:
    connect(tmp_path / "phones", monkeypatch, iphone(DEVICE), refuses=refuses)
    found = run(plausible(home(tmp_path)), 26, 27, device=DEVICE)
    assert outcomes(found) == {26: "holds", 27: outcome}, found.checks
    assert found.checks[0].values["in PATH as it comes"] is False
    assert DEVICE not in found.model_dump_json()


@pytest.mark.parametrize(
    ("enter_by", "reason"),
    [
        (os.abort, "crashed: its process was ended by SIGABRT"),
        (functools.partial(os._exit, 3), "crashed: its process ended with code 3"),
        (functools.partial(time.sleep, 60), "hung: no end within 1 s"),
    ],
)
def test_a_check_that_aborts_or_hangs_is_a_result(run, enter_by, reason: str) -> None:
    (found,) = run(None, 21, enter_by=enter_by, limit_s=1 if "hung" in reason else 60).checks
    assert (found.outcome, found.reason) == ("does not", reason)


def test_without_core_ml_nothing_passes(run) -> None:
    """On Linux, as it is."""
    if sys.platform == "darwin":
        pytest.skip("this is a Mac")
    found = run(None)
    assert set(outcomes(found).values()) == {"does not", "not applicable"}
    assert [one.number for one in found.failed] == [1]
    assert "libcoremlpython" in (found.failed[0].reason or "")


def test_a_stopped_one_goes_on(run, tmp_path: Path) -> None:
    out, script = tmp_path / "out.json", plausible(home(tmp_path))
    whole = run(script, 1, 21, out=out)
    first = whole.checks[0].model_copy(update={"reason": "kept"})
    out.write_text(whole.model_copy(update={"finished": False, "checks": (first,)}).model_dump_json())
    again = run(script, 1, 21, out=out)
    assert [one.reason for one in again.checks] == ["kept", None]
    assert again.finished
    assert run(script, 1, out=out).checks[0].reason is None  # a finished one is taken anew


def test_names_serials_and_folders_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/Users/jane.doe")
    monkeypatch.setenv("LOGNAME", "jane.doe")
    monkeypatch.setattr(platform, "node", lambda: "Janes-MacBook-Pro.local")
    told = {
        "path": "/Users/jane.doe/bench/.venv/bin/python and /Users/other/x",
        "text": '"serial_number" : "C02XG0FDJGH5", "platform_UUID" : "0B0D6E7C-1111-5222-8333-00000000ABCD"',
        "host": "on Janes-MacBook-Pro.local as jane.doe, 192.168.1.17, a4:83:e7:01:02:03",
        "device": ["Jane's iPhone 00008120-001109881103C01E", "/var/folders/ab/xyz/T/tmp1"],
        "number": 3,
    }
    text = json.dumps(scrubbed(told, names=("Jane's iPhone",)))
    for secret in ("jane", "Jane", "C02X", "0B0D6E7C", "192.168", "a4:83", "1109881103", "/var/folders", "other"):
        assert secret not in text, text
    assert '"number": 3' in text
    assert "bench/.venv/bin/python" in text


def alike(one: Any, two: Any, name: str = "") -> bool:
    """The same values: of numbers to a hundredth, of what this machine has not at all."""
    if name in (
        "load_average",
        "free_bytes",
        "processes",
        "case sensitive",
        "cache has spaces",
        "lost_s",
        "assertions",
    ):
        return True
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(alike(one[key], two[key], key) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(alike(a, b) for a, b in zip(one, two, strict=True))
    if isinstance(one, int | float) and isinstance(two, int | float) and not isinstance(one, bool):
        return bool(one == pytest.approx(two, rel=0.01, abs=0.005))
    if isinstance(one, str) and isinstance(two, str):
        return re.sub(r"TEMPORARY\S*|~\S*", "", one) == re.sub(r"TEMPORARY\S*|~\S*", "", two)
    return bool(one == two)
