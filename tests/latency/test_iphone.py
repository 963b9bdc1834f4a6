"""iPhones through coremltools' remote_device: real coremltools, tools and an app that speak Xcode's JSON."""

import functools
import json
from pathlib import Path

import coremltools as ct
import pytest
from coremltools.models.utils import load_spec

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.latency.iphone import (
    Credentials,
    DeviceRuntime,
    find_device,
    list_devices,
    take_arrays,
)
from coreml_prune_bench.latency.session import Machine, Session
from coreml_prune_bench.latency.statistics import summarize
from coreml_prune_bench.latency.worker import Workers
from coreml_prune_bench.mlprogram.reader import read
from coreml_prune_bench.records.latency import Protocol, State
from tests.coreml_stand_in import Script
from tests.coreml_stand_in.devices import connect, iphone
from tests.coreml_stand_in.worker import on_stand_in
from tests.latency.sessions import copies, runtime

PROTOCOL = Protocol(rounds=2, predictions=3, seconds=0, warm_up_calls=1, array_inputs=True)


def measure(folder: Path, targets, results: Path, credentials: Credentials):
    device = find_device("Test iPhone")
    opened = functools.partial(DeviceRuntime, device.identifier, credentials)
    machine = Machine(device.facts, runtime, State, lambda seconds: None)
    with (
        Reporter().steps("latency", 1) as steps,
        Workers(on_stand_in(Script(), opened, folder / "modelrunner"), limit_s=60) as workers,
    ):
        return Session(machine, PROTOCOL, results).run(targets, workers, steps)


# --- which devices are there


def test_devices_and_what_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(
        tmp_path / "phones",
        monkeypatch,
        iphone(listed="connected"),
        iphone("Old iPad", kind="iPad", identifier="B", udid="2", developer_mode="disabled"),
        iphone("New iPhone", identifier="C", udid="3", pairing="unpaired"),
        iphone("Watch", kind="appleWatch", identifier="D", udid="4"),
        {"identifier": "E", "deviceProperties": {}, "hardwareProperties": {}, "connectionProperties": {}},
    )
    ready, ipad, unpaired = list_devices()
    assert (ready.name, ready.problem) == ("Test iPhone", None)
    assert (ready.facts.name, ready.facts.os, ready.facts.os_version) == ("iPhone 14 Pro (iPhone15,2)", "iOS", "17.6.1")
    assert "developer mode is off" in (ipad.problem or "")
    assert ipad.facts.os == "iPadOS"
    assert "not paired" in (unpaired.problem or "")


def test_a_device_is_found_by_what_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(
        tmp_path / "phones",
        monkeypatch,
        iphone(),
        iphone("Twin", identifier="B", udid="2"),
        iphone("Twin", identifier="C", udid="3"),
        iphone("Away", identifier="D", udid="4", tunnel="disconnected"),
    )
    # Listed as disconnected, since Xcode has let go of it, but it answers.
    assert find_device("test iphone").problem is None
    assert find_device("00008120-001109881103C01E").name == "Test iPhone"
    assert find_device("C").udid == "3"
    with pytest.raises(BenchError, match="this Mac knows 'Test iPhone', 'Twin', 'Twin', 'Away'"):
        find_device("Somebody's iPhone")
    with pytest.raises(BenchError, match="several devices are called that: give the identifier"):
        find_device("Twin")
    with pytest.raises(BenchError, match=r"not connected \(it is disconnected\): connect and unlock it"):
        find_device("Away")


def test_without_xcode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match="devices need Xcode 15 or newer"):
        list_devices()


# --- images as arrays


def test_the_array_behind_an_image(package: Path) -> None:
    spec = load_spec(str(package))
    program = spec.mlProgram.SerializeToString()
    assert take_arrays(spec)
    (feature,) = spec.description.input
    assert list(feature.type.multiArrayType.shape) == [1, 3, 32, 32]
    assert spec.mlProgram.SerializeToString() == program
    assert not take_arrays(spec)


def test_a_copy_with_arrays_is_a_package_that_runs(package: Path, tmp_path: Path) -> None:
    spec = load_spec(str(package))
    take_arrays(spec)
    weights = str(package / "Data" / "com.apple.CoreML" / "weights")
    ct.models.MLModel(spec, weights_dir=weights, skip_model_load=True).save(str(tmp_path / "arrays.mlpackage"))
    (feature,) = read(tmp_path / "arrays.mlpackage").inputs
    assert (feature.kind, feature.shape) == ("array", (1, 3, 32, 32))


# --- measuring


@pytest.mark.slow
def test_rows_on_a_device_until_it_goes_away(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both rows' first rounds (4 predictions a visit, and one each before), then the device is unplugged."""
    folder = connect(tmp_path / "phones", monkeypatch, iphone(), latency_ms=0.48, gone_after=11)
    outcome = measure(folder, copies(package, tmp_path, "a", "b"), tmp_path, Credentials(development_team="TEAM"))
    for record in outcome.records:
        assert record.status == "failed"
        assert "The device disconnected" in (record.reason or "")
        assert len(record.rounds) == 1
        (one,) = record.rounds
        assert one.model_ns == (480_000,) * 3
        assert (one.before, one.after) == (State(), State())
        assert record.warm_up_ns == (480_000,)
        assert record.device.name == "iPhone 14 Pro (iPhone15,2)"
    (build,) = map(json.loads, (folder / "builds.json").read_text().splitlines())
    assert "DEVELOPMENT_TEAM=TEAM" in build
    assert "platform=iOS,id=00008120-001109881103C01E" in build


def test_a_whole_measurement_on_a_device(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = connect(tmp_path / "phones", monkeypatch, iphone(), latency_ms=0.48)
    profile = Credentials(provisioning_profile="1234", bundle_identifier="org.example.runner")
    for measured in (1, 0):
        (target,) = copies(package, tmp_path, "a")
        written = (target.path / "Manifest.json").stat()
        outcome = measure(folder, [target], tmp_path, profile)
        assert (target.path / "Manifest.json").stat() == written  # coremltools' own reader writes it anew
        assert outcome.measured == measured
        (record,) = outcome.records
        assert summarize(record).median_ns.value == 480_000
        assert [one.model_ns for one in record.rounds] == [(480_000,) * 3] * 2
        # The call is the whole way there and back.
        assert min(call for one in record.rounds for call in one.call_ns) > 10_000_000
        assert (record.cold_load_ns, record.cached_load_ns) == (750_000_000, None)
        assert record.placement is not None
        assert set(record.placement.preferred) == {"neural_engine"}
        notes = " ".join(record.notes)
        assert "between two predictions the device waits seconds" in notes
        assert "images were given as arrays" in notes
    # The app is built once, and the second run found the row measured.
    (build,) = map(json.loads, (folder / "builds.json").read_text().splitlines())
    assert "PROVISIONING_PROFILE=1234" in build
    assert "PRODUCT_BUNDLE_IDENTIFIER=org.example.runner" in build


@pytest.mark.slow
@pytest.mark.parametrize("refuses", ["Load", "Prediction", "ComputePlan"])
def test_what_the_device_refuses(refuses: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = connect(tmp_path / "phones", monkeypatch, iphone(), refuses=refuses)
    (record,) = measure(folder, copies(package, tmp_path, "a"), tmp_path, Credentials()).records
    told = f"Invalid resource: {refuses} refused by the script"
    if refuses == "ComputePlan":
        assert record.status == "measured"
        assert f"no compute plan: {told}" in record.notes
    else:
        assert record.reason == told


@pytest.mark.slow
def test_an_app_that_cannot_be_signed_ends_the_run(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = connect(tmp_path / "phones", monkeypatch, iphone(), build_fails=True)
    with pytest.raises(BenchError, match="the app on 'Test iPhone' cannot be built, signed or started"):
        measure(folder, copies(package, tmp_path, "a"), tmp_path, Credentials("UNKNOWN"))
