"""iPhones for tests: `xcrun`, `devicectl` and `xcodebuild` that speak Xcode's JSON, and the app on the device.

coremltools runs these tools by name, so they are put into a folder that comes first in PATH. A device's files are a
folder; the app is a process that watches it and answers requests as `modelrunner` does (ModelRunner's Swift sources in
coremltools' repository), with the portable runtime and scripted durations.
"""

import json
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


FOLDER_VARIABLE = "STAND_IN_DEVICES"
"""Where the tools find devices.json, and keep each device's files."""


def iphone(
    name: str = "Test iPhone",
    *,
    kind: str = "iPhone",
    identifier: str = "3D048AED-F823-4530-A0E8-D1D1C16F9948",
    udid: str = "00008120-001109881103C01E",
    developer_mode: str = "enabled",
    pairing: str = "paired",
    listed: str = "disconnected",
    tunnel: str = "connected",
) -> dict[str, Any]:
    """An entry of `devicectl list devices`. listed: the tunnel's state there; tunnel: the one that its details show."""
    return {
        "capabilities": [{"featureIdentifier": "com.apple.coredevice.feature.tags", "name": "Modify Tags"}],
        "connectionProperties": {
            "authenticationType": "manualPairing",
            "isMobileDeviceOnly": False,
            "pairingState": pairing,
            "potentialHostnames": [f"{udid}.coredevice.local"],
            "transportType": "wired",
            "tunnelState": listed,
            "tunnelTransportProtocol": "tcp",
        },
        "deviceProperties": {
            "bootState": "booted",
            "ddiServicesAvailable": True,
            "developerModeStatus": developer_mode,
            "name": name,
            "osBuildUpdate": "21G93",
            "osVersionNumber": "17.6.1",
        },
        "hardwareProperties": {
            "cpuType": {"name": "arm64e", "subType": 2, "type": 16777228},
            "deviceType": kind,
            "hardwareModel": "D73AP",
            "internalStorageCapacity": 128000000000,
            "marketingName": "iPhone 14 Pro",
            "platform": "iOS",
            "productType": "iPhone15,2",
            "reality": "physical",
            "udid": udid,
        },
        "identifier": identifier,
        "tags": [],
        "visibilityClass": "default",
        "_tunnel_in_details": tunnel,
    }


def connect(folder: Path, monkeypatch: "pytest.MonkeyPatch", *devices: dict[str, Any], **behaviour: Any) -> Path:
    """Put the tools into PATH, with these devices. behaviour: see `app.py`, and build_fails=True. Returns `folder`."""
    tools, developer = folder / "bin", folder / "Xcode.app" / "bin"
    (folder / "devices.json").parent.mkdir(parents=True, exist_ok=True)
    (folder / "devices.json").write_text(json.dumps({"devices": devices, "behaviour": behaviour}))
    # On a Mac as it comes, `xcrun` alone finds what lies in Xcode, such as devicectl.
    for place, name in ((tools, "xcrun"), (tools, "xcodebuild"), (developer, "devicectl")):
        place.mkdir(parents=True, exist_ok=True)
        # As bare as Python can be: coremltools starts several of these for each prediction.
        script = f'#!/bin/sh\nexec "{sys.executable}" -I -S "{Path(__file__).with_name("tools.py")}" {name} "$@"\n'
        (place / name).write_text(script)
        (place / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    monkeypatch.setenv("TQDM_DISABLE", "1")  # the stand-in imports coremltools before `DeviceRuntime` can say so
    return folder


def put_app_sources(project: Path) -> None:
    """The wheel for macOS has the app's sources beside its Python files; here stands an empty project."""
    from coremltools.models.ml_program.experimental.remote_device import _ModelRunnerAppBuilder

    (project / "ModelRunner.xcworkspace").mkdir(parents=True, exist_ok=True)
    _ModelRunnerAppBuilder._get_project_path = staticmethod(lambda: project)
