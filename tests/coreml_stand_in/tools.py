"""`xcrun devicectl`, `devicectl` and `xcodebuild`, as coremltools calls them. Needs nothing else."""

import json
import os
import shutil
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.environ["STAND_IN_DEVICES"]
BUNDLE = "com.coremltools.modelrunnerd"


def main(tool, arguments):
    if tool == "xcodebuild":
        return build(arguments)
    if tool == "xcrun":
        assert arguments[0] == "devicectl", arguments
        arguments = arguments[1:]
    return devicectl(arguments)


def build(arguments):
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


def devicectl(arguments):
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
            os.chdir(ROOT)
            os.execv(sys.executable, [sys.executable, "-m", "tests.coreml_stand_in.app", container(arguments), FOLDER])
        case ["device", "copy", way]:
            return copy(arguments, way)
    raise SystemExit(f"devicectl stand-in: {arguments}")


def copy(arguments, way):
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


def take(source, destination):
    if os.path.isdir(source):
        shutil.copytree(source, destination)
    else:
        shutil.copyfile(source, destination + ".part")
        os.replace(destination + ".part", destination)


def devices():
    with open(os.path.join(FOLDER, "devices.json")) as file:
        return json.load(file)["devices"]


def public(device):
    return {key: content for key, content in device.items() if not key.startswith("_")}


def chosen(arguments):
    wanted = value(arguments, "-d") or value(arguments, "--device")
    return next(device for device in devices() if device["identifier"] == wanted)


def container(arguments):
    return os.path.join(FOLDER, chosen(arguments)["identifier"])


def value(arguments, option):
    for place, argument in enumerate(arguments):
        if argument == option:
            return arguments[place + 1]
        if argument.startswith(option + "="):
            return argument.split("=", 1)[1]
    return None


def answer(arguments, result):
    info = {"arguments": ["devicectl", *arguments], "jsonVersion": 2, "outcome": "success", "version": "397.28"}
    with open(value(arguments, "-j"), "w") as file:
        json.dump({"info": info, "result": result}, file)
    return 0


def fail(message):
    sys.stderr.write(f"ERROR: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
