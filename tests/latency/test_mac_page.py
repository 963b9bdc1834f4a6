"""docs/mac.md and docs/latency.md as a new user takes them, on the stand-in: what their commands do there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from coreml_prune_bench.accuracy import package as package_accuracy
from coreml_prune_bench.accuracy import runtime, watched
from coreml_prune_bench.bench.run import Outcome
from coreml_prune_bench.latency import worker
from coreml_prune_bench.latency.bench import Bench
from coreml_prune_bench.latency.iphone import list_devices
from coreml_prune_bench.latency.mac import read_machine, read_state, run_tool
from coreml_prune_bench.latency.targets import packages_of_suite
from coreml_prune_bench.runtimes.protocol import loader
from coreml_prune_bench.testing import Script
from coreml_prune_bench.testing.system import mac
from tests.cli.test_docs import FENCE, ROOT, fenced
from tests.latency import macos

ELSEWHERE = {
    "run": "trains for minutes",
    "--self-test": "test_self_test.py runs it",
    "--device": "test_iphone.py connects a device",
    "m.aimodel": "tests/runtimes/test_coreai.py runs both by Core AI's own runtime, which no stand-in replaces",
}
"""What is only parsed (by tests/cli/test_docs.py), and why."""

CALLS = [
    pytest.param(call, id=f"{page}: {call}")
    for page in ("mac", "latency")
    for call in fenced(ROOT / "docs" / f"{page}.md")
    if not set(shlex.split(call)) & ELSEWHERE.keys()
]


class InThisProcess:
    """In the place of worker processes, which would not be on this test's Mac."""

    def __init__(self, open_runtime: Any, *, limit_s: float, count: int = 1) -> None:
        self._bench = Bench(open_runtime(), time.perf_counter_ns, time.time_ns, sleep=time.sleep)

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def ask(self, step: str, *arguments: Any) -> list[Any]:
        return [self.ask_alone(step, *arguments)]

    def ask_alone(self, step: str, *arguments: Any, cold: bool = False) -> Any:
        return getattr(self._bench, step)(*arguments)


def of_the_tiny_suite(call: str, results: Path, package: Path, folder: Path) -> list[str]:
    """The words of a call, with what is there in the place of what a reader has."""
    there = {"m.mlpackage": str(package), "imagefolder:/data/imagenet": "digits", "quick": "tiny", "imagenet": "tiny"}
    words = [there.get(word, word) for word in shlex.split(call)]
    if words[0] == "latency":
        words += ["--rounds", "2", "--predictions", "20", "--seconds", "0"]
    places = {"latency": results, "parity": folder}
    return words + (["--results", str(places[words[0]])] if words[0] in places else [])


@pytest.mark.parametrize("call", CALLS)
def test_a_command_of_the_page(
    call: str,
    run_bench: Any,
    monkeypatch: pytest.MonkeyPatch,
    tiny_run: Outcome,
    tiny_results: Path,
    tmp_path: Path,
) -> None:
    results = tmp_path / "results"  # (tables of other tests would show latencies)
    shutil.copytree(tiny_results, results)
    monkeypatch.setattr(worker, "Workers", InThisProcess)
    for module in (watched, runtime, package_accuracy):
        monkeypatch.setattr(module, "watched_loader", loader)
    with mac(Script(predicts="new", energy_mj={"neural_engine": 2.0}, home=str(tmp_path))):
        package = packages_of_suite(results, "tiny")[0][0]
        code, output, errors = run_bench(*of_the_tiny_suite(call, results, package, tmp_path))
    assert code == 0, errors
    assert output
    assert "failed" not in output


def test_what_a_mac_prints_is_recorded_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read of the files is what is read of the Mac, and no serial number is in them."""
    (commands,) = (code for _, code in FENCE.findall((ROOT / "docs/mac.md").read_text()) if code.startswith("sysctl"))
    folder = tmp_path / "new"
    folder.mkdir()
    monkeypatch.setattr(macos, "FOLDER", tmp_path)
    with mac(Script(home=str(tmp_path))):
        subprocess.run(["bash", "-euc", commands], cwd=folder, check=True)
        recorded = macos.tool_of("new")
        assert read_machine(recorded, "darwin") == read_machine(run_tool, "darwin")
        assert read_state(recorded, "darwin").thermal == "nominal"
    assert {path.name for path in folder.iterdir()} == {f"{name}.txt" for name in macos._FILES.values()}
    texts = "".join(path.read_text() for path in folder.iterdir())
    assert "MacBook Pro" in texts
    assert not re.search("X0X0X0X0X0|0B0D6E7C", texts)


@pytest.mark.parametrize("found", [True, False])
def test_a_mac_without_devices(found: bool, package: Path, tmp_path: Path, refused: Any) -> None:
    with mac(Script(devicectl_found=found, home=str(tmp_path))):
        error = refused("latency", package, "--device", "My iPhone")
        assert not found or list_devices() == []
    assert ("this Mac knows none" if found else 'unable to find utility "devicectl"') in error


def test_a_tool_that_writes_nothing(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    (tmp_path / "xcrun").write_text("#!/bin/sh\n")
    (tmp_path / "xcrun").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    error = refused("latency", package, "--device", "My iPhone")
    assert error == "error: xcrun devicectl list devices: it wrote no answer"


SUITE = """
description = "from an empty folder to a table"
models = ["mobilenet_v3_small"]
weights = "none"
training = {epochs = 1}
[data]
default = "digits"
[[configs]]
algorithm = "post-training"
sparsity = 0.5
"""


@pytest.mark.slow
def test_from_nothing_to_a_table_in_processes_of_their_own(tmp_path: Path) -> None:
    """As the page has it, on the real clock: a suite trained on what is found, and its latencies."""
    (tmp_path / "small.toml").write_text(SUITE)
    (tmp_path / "home").mkdir()
    variables = os.environ | {"STAND_IN_HOME": str(tmp_path / "home"), "COREML_BENCH_CACHE": str(tmp_path / "cache")}

    def on_a_mac(*words: str) -> str:
        command = [sys.executable, "-m", "coreml_prune_bench.testing.on_a_mac", *words]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    on_a_mac("run", "--suite", "small.toml", "--results", "results")
    rounds = ("--rounds", "2", "--predictions", "20", "--seconds", "0", "--also", "energy,memory")
    table = on_a_mac("latency", "--suite", "small", "--results", "results", *rounds)
    assert "Core ML on MacBook Pro (Mac14,9)" in table
    assert table.count("Unstructured Sparsity 50%") >= 2
