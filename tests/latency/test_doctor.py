"""What a machine can measure, and what it lacks, on five Macs and elsewhere."""

import json
from pathlib import Path

import pytest

from coreml_prune_bench.latency.doctor import Report, core_ml_devices, examine
from coreml_prune_bench.testing import Script, installed
from coreml_prune_bench.testing.devices import connect, iphone
from tests.latency.macos import tool_of

ENGINE = ("CPU", "GPU", "Neural Engine (16 cores)")


def on(name: str, devices: tuple[str, ...] | None = ENGINE, tools: tuple[str, ...] = ()) -> Report:
    return examine(
        tool_of(name),
        "darwin",
        compute_devices=lambda: devices,
        which=lambda tool: f"/usr/bin/{tool}" if tool in tools else None,
    )


def lacks(report: Report) -> dict[str, str]:
    return {ability.name: ability.lacks for ability in report.abilities if ability.lacks}


def test_a_mac_that_can_measure_everything_but_devices() -> None:
    report = on("m4-mini-macos26")
    assert set(lacks(report)) == {"latency on an iPhone or iPad"}
    assert "Xcode 15 or newer" in lacks(report)["latency on an iPhone or iPad"]
    assert report.compute_devices == ENGINE
    assert not [told for told in report.disturbances if "load average" not in told]


def test_what_would_disturb() -> None:
    disturbances = on("m4-air-hot-macos26").disturbances
    assert [told for told in disturbances if "load average" not in told] == [
        "the thermal state is serious: let it cool down",
        "low-power mode is on: switch it off in the battery settings",
        "it runs on battery: connect its power adapter",
        "swift-frontend takes 96 % of a core",
        "mds_stores takes 31 % of a core",
    ]


def test_a_virtual_machine_has_no_neural_engine() -> None:
    found = lacks(on("virtual-macos15", ("CPU",)))
    assert found["latency on the Neural Engine"] == "a Mac that is no virtual machine: these have no Neural Engine"
    assert "latency through Core ML" not in found


def test_an_old_macos_has_no_compute_plans() -> None:
    tool = tool_of("m1-air-macos14")

    def older(command):
        return (tool(command) or "").replace("14.5", "14.3")

    report = examine(older, "darwin", compute_devices=lambda: ENGINE, which=lambda name: None)
    assert lacks(report)["placement, from compute plans"] == (
        "macOS 14.4, the first that has compute plans; this is 14.3"
    )
    assert "placement, from compute plans" not in lacks(on("m1-air-macos14"))


def test_devices_of_a_mac_with_xcode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(tmp_path / "phones", monkeypatch, iphone(), iphone("Away", identifier="B", udid="2", tunnel="unavailable"))
    report = on("m4-mini-macos26", tools=("xcodebuild", "devicectl"))
    assert [(device.name, device.problem) for device in report.devices] == [
        ("Test iPhone", None),
        ("Away", "not connected (it is unavailable): connect and unlock it"),
    ]
    # The wheel for Linux has no sources of the app.
    assert "the sources of coremltools' app" in lacks(report)["latency on an iPhone or iPad"]


def test_compute_devices_as_coremltools_tells_them() -> None:
    assert core_ml_devices() is None
    with installed(Script(neural_engine_cores=16)):
        assert core_ml_devices() == ENGINE


def test_the_command(run_bench) -> None:
    code, output, _ = run_bench("doctor")
    assert code == 0
    assert "yes  accuracy and size, in the portable runtime" in output
    assert "no   latency through Core ML; needs a Mac" in output
    content = json.loads(run_bench("doctor", "--json")[1])
    assert content["machine"]["device"]["chip"]
    assert content["abilities"][0] == {"name": "accuracy and size, in the portable runtime", "lacks": None}
