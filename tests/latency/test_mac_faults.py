"""What a first Mac would have met: each fault of its own, on the stand-in."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coreml_prune_bench.bench.build import apple_gpu
from coreml_prune_bench.core.errors import BenchError, PackageError
from coreml_prune_bench.latency import doctor, qos
from coreml_prune_bench.latency.iphone import _told, devicectl_path, with_devicectl
from coreml_prune_bench.latency.mac import parse_neural_engine
from coreml_prune_bench.models import loading, mps
from coreml_prune_bench.runtimes import coreml
from coreml_prune_bench.testing import Latency, Script, installed
from coreml_prune_bench.testing.devices import connect, iphone
from tests.latency.macos import tool_of
from tests.latency.sessions import PROTOCOL, copies, measure

SHORT = PROTOCOL.model_copy(update={"rounds": 2, "predictions": 20, "seconds": 0})


# --- Apple's GPU under torch


@pytest.fixture
def cpu_as_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mps, "device", lambda: torch.device("cpu"))


def test_copies_wait_unless_memory_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Batch:
        def result(self):
            return self, self

        def to(self, device, non_blocking):
            asked.append((device.type, non_blocking))

    for kind in ("mps", "cpu", "cuda"):
        loading._on_device(Batch(), torch.device(kind))
    assert set(asked) == {("mps", False), ("cpu", False), ("cuda", True)}


def test_apples_gpu_is_right_or_not_and_that_is_remembered(
    cpu_as_mps: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path))
    assert mps.examine() == mps.Findings(0, 0)
    assert apple_gpu.is_right()
    monkeypatch.setattr(mps, "examine", lambda: pytest.fail("it was found out before"))
    assert apple_gpu.is_right()
    monkeypatch.setattr(apple_gpu.platform, "version", lambda: "another system")
    monkeypatch.setattr(mps, "examine", lambda: mps.Findings(copied=17, trained=0))
    assert not apple_gpu.is_right()
    assert "training takes the CPU" in capsys.readouterr().err


def test_an_operation_that_mps_has_not_is_no_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails() -> mps.Findings:
        raise NotImplementedError("'aten::x' is not currently implemented for the MPS device")

    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(mps, "examine", fails)
    assert not apple_gpu.is_right()


# --- Xcode


def test_devicectl_outside_of_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(tmp_path / "phones", monkeypatch, iphone())
    assert shutil.which("devicectl") is None
    assert devicectl_path() == str(tmp_path / "phones/Xcode.app/bin/devicectl")
    with_devicectl()
    assert shutil.which("devicectl") == devicectl_path()


def test_what_xcodebuild_printed_is_said() -> None:
    """coremltools hands on its standard error, which is None."""
    failed = subprocess.CalledProcessError(65, "xcodebuild", output=b"line\n" * 90 + b"error: no team\n")
    error = RuntimeError("[Error Code 65] None")
    error.__context__ = failed
    assert _told(error) == "line line line line error: no team"


# --- cold loads


def test_whatever_loads_first_notes_the_cold_load(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`parity`, say: `latency` finds it warm afterwards, and still knows what the first load took."""
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "home"
    home.mkdir()
    script = Script({"m": Latency(noise=0)}, cold_load_ms=900, cached_load_ms=30, predicts=False, home=str(home))
    targets = copies(package, tmp_path, "m")
    with installed(script):
        coreml.Model(targets[0].path)
    (record,), _ = measure(script, targets, tmp_path / "results", SHORT)
    assert (record.cold_load_ns, record.cached_load_ns) == (900_000_000, 30_000_000)


def test_compiled_models_of_older_systems_are_cleared(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "a cache"))  # with a space in it
    with installed(Script()):
        old = coreml.Model(package).compiled.path
        monkeypatch.setattr(coreml.platform, "version", lambda: "the next one")
        new = coreml.Model(package).compiled.path
    assert not old.exists()
    assert new.is_dir()


# --- sleep


def test_a_visit_during_which_it_slept_is_made_again(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = copies(package, tmp_path, "m")
    # Compiling takes no time: whether another test has compiled this package is not to move the visits.
    script = Script({"m": Latency(ms=1, noise=0)}, compile_ms=0, predicts=False)
    _, undisturbed = measure(script, targets, tmp_path / "undisturbed", SHORT)
    script = replace(script, sleeps_at_s=undisturbed.world.seconds - 0.01, sleeps_for_s=5640)  # in the last visit
    (record,), _ = measure(script, targets, tmp_path / "results", SHORT)
    assert record.status == "measured"
    assert [len(one.call_ns) for one in record.rounds] == [20, 20]
    assert (
        "the clock parted by 5,640.0 s: the machine slept, or its time was set; this visit is thrown away"
        in capsys.readouterr().err
    )
    assert "1 visits were thrown away and made again: the machine slept meanwhile" in record.notes


# --- doctor


def test_doctor_says_why_core_ml_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    report = doctor.examine(tool_of("m2pro-macos15"), "darwin", which=lambda name: None)
    (lacks,) = {one.lacks for one in report.abilities if one.name == "latency through Core ML"}
    assert lacks == ("coremltools' native module, which does not load: No module named 'coremltools.libcoremlpython'")


def test_doctor_does_not_say_yes_to_no_devices() -> None:
    report = doctor.examine(tool_of("m2pro-macos15"), "darwin", compute_devices=tuple, which=lambda name: None)
    assert [one.lacks for one in report.abilities if one.name == "latency through Core ML"] == [
        "Core ML to list a compute device: it lists none here"
    ]


# --- what else a Mac can be


def test_two_neural_engines() -> None:
    one = '"DeviceProperties" = {"ANEDevicePropertyNumANECores"=16}\n'
    assert [parse_neural_engine(text) for text in (one, one * 2, "")] == [16, 32, None]


def test_a_plan_of_what_is_no_compiled_model_does_not_end_the_process(package: Path, tmp_path: Path) -> None:
    with installed(Script()):
        for path in (package, tmp_path / "gone.mlmodelc"):
            with pytest.raises(PackageError, match="no compiled model"):
                coreml.compute_plan(path, "all")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n    NSLocalizedDescription = "It is \\"broken\\".";\n}', 'It is "broken".'),
        ('{\n NSLocalizedDescription = Broken;\n NSUnderlyingError = "x";\n}', "Broken"),
        ("a sentence", "a sentence"),
    ],
)
def test_of_a_dump_the_description_is_told(text: str, said: str) -> None:
    assert coreml.said(RuntimeError(text)) == said


@pytest.mark.parametrize("value", [*(np.ones((1, 8), kind) for kind in (np.int64, np.uint8, bool)), [[1.0] * 8]])
def test_the_stand_in_takes_no_more_than_core_ml(intact: Path, value: object) -> None:
    with installed(Script()):
        model = coreml.Model(intact)
        with pytest.raises(RuntimeError, match=r"value type not convertible|is required but not specified"):
            model._model.predict({model.inputs[0].name: value})


def test_no_class_of_service_where_there_is_none() -> None:
    if sys.platform == "darwin":
        pytest.skip("this is a Mac")
    assert qos.current() is None
    with pytest.raises(BenchError, match="no classes of service"):
        qos.become("utility")
