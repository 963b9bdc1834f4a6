"""`xcrun devicectl`, `devicectl` and `xcodebuild`, as coremltools calls them. Needs nothing else."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time

TYPE_CHECKING = False  # (typing takes a while to import, and this starts often)
if TYPE_CHECKING:
    from typing import Any

FOLDER = os.environ["STAND_IN_DEVICES"]
BUNDLE = "com.coremltools.modelrunnerd"


def main(tool: str, arguments: list[str]) -> int:
    if tool == "xcodebuild":
        return build(arguments)
    if tool == "xcrun" and arguments[0] == "--find":
        found = shutil.which(arguments[1], path=os.path.join(FOLDER, "Xcode.app", "bin"))
        if found:
            sys.stdout.write(found + "\n")
            return 0
        return fail(f'xcrun: error: unable to find utility "{arguments[1]}", not a developer tool or in PATH')
    if tool == "xcrun":
        assert arguments[0] == "devicectl", arguments
        arguments = arguments[1:]
    return devicectl(arguments)


def build(arguments: list[str]) -> int:
    with open(os.path.join(FOLDER, "devices.json")) as file:
        fails = json.load(file)["behaviour"].get("build_fails")
    settings = dict(
        argument.split("=", 1) for argument in arguments if "=" in argument and not argument.startswith("-")
    )
    with open(os.path.join(FOLDER, "builds.json"), "a") as file:
        file.write(json.dumps(arguments) + "\n")
    if fails:
        sys.stdout.write('error: Signing for "modelrunner" requires a development team.\n')
        return 65
    os.makedirs(os.path.join(settings["SYMROOT"], "Release-iphoneos", "modelrunner.app"))
    return 0


def devicectl(arguments: list[str]) -> int:
    words = [word for word in arguments if not word.startswith("-")]
    match words[:3]:
        case ["list", "devices", *_]:
            return answer(arguments, {"devices": [public(device) for device in devices()]})
        case ["device", "info", "details"]:
            device = chosen(arguments)
            device["connectionProperties"]["tunnelState"] = device["_tunnel_in_details"]
            return answer(arguments, public(device))
        case ["device", "install", "app"]:
            os.makedirs(container(arguments), exist_ok=True)
            return answer(arguments, {"installedApplications": [{"bundleID": BUNDLE, "databaseUUID": "5F1D2C3A"}]})
        case ["device", "process", "launch"]:
            os.execv(
                sys.executable, [sys.executable, "-m", "coreml_prune_bench.testing.app", container(arguments), FOLDER]
            )
        case ["device", "copy", way]:
            return copy(arguments, way)
    raise SystemExit(f"devicectl stand-in: {arguments}")


def copy(arguments: list[str], way: str) -> int:
    source, destination = value(arguments, "--source"), value(arguments, "--destination")
    inside = os.path.join(container(arguments), source if way == "from" else destination)
    outside = destination if way == "from" else source
    if os.path.exists(os.path.join(FOLDER, "gone")):
        return fail("The device disconnected (com.apple.dt.CoreDeviceError error 1000.)")
    if way == "to":
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        take(outside, inside)
    else:
        # The tool is slow, and while it works the app may answer; else each answer would cost coremltools' half second.
        until = time.monotonic() + 3
        while not os.path.exists(inside) and time.monotonic() < until:
            time.sleep(0.005)
        if not os.path.exists(inside):
            return fail("The specified file could not be transferred. (com.apple.dt.CoreDeviceError error 7000.)")
        take(inside, outside)
    return answer(arguments, {"source": source, "destination": destination, "bytesTransferred": 1})


def take(source: str, destination: str) -> None:
    if os.path.isdir(source):
        shutil.copytree(source, destination)
    else:
        shutil.copyfile(source, destination + ".part")
        os.replace(destination + ".part", destination)


def devices() -> list[dict[str, Any]]:
    with open(os.path.join(FOLDER, "devices.json")) as file:
        return json.load(file)["devices"]


def public(device: dict[str, Any]) -> dict[str, Any]:
    return {key: content for key, content in device.items() if not key.startswith("_")}


def chosen(arguments: list[str]) -> dict[str, Any]:
    wanted = value(arguments, "-d") or value(arguments, "--device")
    return next(device for device in devices() if device["identifier"] == wanted)


def container(arguments: list[str]) -> str:
    return os.path.join(FOLDER, chosen(arguments)["identifier"])


def value(arguments: list[str], option: str) -> str:
    for place, argument in enumerate(arguments):
        if argument == option:
            return arguments[place + 1]
        if argument.startswith(option + "="):
            return argument.split("=", 1)[1]
    return ""


def answer(arguments: list[str], result: dict[str, Any]) -> int:
    info = {"arguments": ["devicectl", *arguments], "jsonVersion": 2, "outcome": "success", "version": "397.28"}
    with open(value(arguments, "-j"), "w") as file:
        json.dump({"info": info, "result": result}, file)
    return 0


def fail(message: str) -> int:
    sys.stderr.write(f"ERROR: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
