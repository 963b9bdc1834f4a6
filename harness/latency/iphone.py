"""iPhones and iPads: which are there, and timing packages on them through coremltools' `remote_device`.

coremltools builds, signs and starts an app on the device (`modelrunner`, which comes with its wheel for macOS) and
talks to it in files that `devicectl` copies. What follows from that, and stands in the notes of every record:

- Between two predictions lie seconds of copying, in which the device idles; a loop in an app is likely to be faster.
- Each load is of a new copy of the model, so each is a cold one.
- The app takes arrays only (images are refused as "uint8 is not supported"), so a package with image inputs is measured
  as a copy that takes the array behind the image: Core ML's conversion of the image is left out.

Listing devices needs Xcode, but not coremltools, which is imported in the worker process only.
"""

import asyncio
import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.core.cache_folder import cache_folder, use_new
from coreml_prune_bench.core.errors import BenchError, PackageError
from coreml_prune_bench.core.keys import key_of
from coreml_prune_bench.latency.bench import Loaded, Opened
from coreml_prune_bench.latency.placement import placement
from coreml_prune_bench.latency.targets import Target
from coreml_prune_bench.mlprogram.reader import specification
from coreml_prune_bench.records.latency import Device

NOTES = (
    "between two predictions the device waits seconds for files to be copied; a loop in an app is likely to be faster",
    "every load on the device is a cold one, because each is of a new copy",
)

_TYPES = ("iPhone", "iPad")
_LIMIT_SECONDS = 60
_SEED = 0
_LAST_LINES = 5
"""Of xcodebuild, which prints thousands before it says what is wrong."""


class DeviceError(BenchError):
    """What coremltools, devicectl or the device itself answered."""


@dataclass(frozen=True)
class Credentials:
    """What the app on the device is signed with. Either a team, whose profile Xcode manages, or a profile."""

    development_team: str | None = None
    provisioning_profile: str | None = None
    bundle_identifier: str | None = None

    @classmethod
    def from_environment(cls) -> "Credentials":
        """Of DEVELOPMENT_TEAM, PROVISIONING_PROFILE and BUNDLE_IDENTIFIER, for what has no options for them."""
        names = ("DEVELOPMENT_TEAM", "PROVISIONING_PROFILE", "BUNDLE_IDENTIFIER")
        return cls(*(os.environ.get(name) or None for name in names))


@dataclass(frozen=True)
class MobileDevice:
    """An iPhone or iPad that this Mac knows. problem: why it cannot be measured now, and what to do; None if it can."""

    name: str
    identifier: str
    udid: str
    facts: Device
    problem: str | None


def list_devices() -> list[MobileDevice]:
    """Every iPhone and iPad that this Mac knows. Raises BenchError without Xcode."""
    return [device for entry in _devicectl("list", "devices")["devices"] if (device := _device(entry))]


def find_device(wanted: str) -> MobileDevice:
    """The device of that name, identifier or UDID, ready to be measured; BenchError says what there is, or what to do.

    Asking for its details makes the connection anew: Xcode lets go of it after each command, and a device that can be
    used is then listed as disconnected.
    """
    known = list_devices()
    found = [d for d in known if wanted.casefold() in (d.name.casefold(), d.identifier.casefold(), d.udid.casefold())]
    if len(found) != 1:
        names = ", ".join(repr(device.name) for device in known) or "none"
        many = "several devices are called that: give the identifier" if found else f"this Mac knows {names}"
        raise BenchError(f"--device {wanted!r}: {many}")
    device = refreshed(found[0])
    if device.problem:
        raise BenchError(f"--device {wanted!r}: {device.problem}")
    return device


def refreshed(device: MobileDevice) -> MobileDevice:
    """What is known of a device once it was asked itself."""
    return _device(_devicectl("device", "info", "details", "--device", device.identifier)) or device


def _device(entry: dict[str, Any]) -> MobileDevice | None:
    """From devicectl's JSON; None for watches, and for what it knows too little of."""
    hardware, properties = entry.get("hardwareProperties", {}), entry.get("deviceProperties", {})
    if hardware.get("deviceType") not in _TYPES or not hardware.get("udid") or not properties.get("name"):
        return None
    product = hardware.get("productType", "unknown")
    return MobileDevice(
        name=properties["name"],
        identifier=entry.get("identifier", ""),
        udid=hardware["udid"],
        facts=Device(
            name=f"{hardware.get('marketingName', hardware['deviceType'])} ({product})",
            chip="unknown",
            memory_bytes=None,
            os="iPadOS" if hardware["deviceType"] == "iPad" else "iOS",
            os_version=properties.get("osVersionNumber", "unknown"),
            os_build=properties.get("osBuildUpdate"),
            neural_engine_cores=None,
        ),
        problem=_problem(properties, entry.get("connectionProperties", {})),
    )


def _problem(properties: dict[str, Any], connection: dict[str, Any]) -> str | None:
    if connection.get("pairingState") != "paired":
        return "not paired with this Mac: connect it, unlock it and trust this Mac"
    if properties.get("developerModeStatus") != "enabled":
        return "developer mode is off: switch it on under Settings, Privacy & Security"
    if connection.get("tunnelState") != "connected":
        return f"not connected (it is {connection.get('tunnelState', 'of unknown state')}): connect and unlock it"
    return None


def _devicectl(*arguments: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = ["xcrun", "devicectl", *arguments, "-j", str(answer)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_SECONDS, errors="replace")
        except FileNotFoundError as error:
            raise BenchError("devices need Xcode 15 or newer: `xcrun devicectl` is not on this machine") from error
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{' '.join(command[:-2])}: no answer within {_LIMIT_SECONDS} s") from error
        if done.returncode != 0 or not answer.is_file():
            ended = f"exit code {done.returncode}" if done.returncode else "it wrote no answer"
            said = " ".join(done.stderr.split()) or ended
            raise BenchError(f"{' '.join(command[:-2])}: {said}")
        result: dict[str, Any] = json.loads(answer.read_bytes())["result"]
        return result


# --- in the worker process


def devicectl_path() -> str | None:
    """Where devicectl lies, as `xcrun` says: in Xcode, which on a Mac as it comes is not in PATH. None without it."""
    if found := shutil.which("devicectl"):
        return found
    try:
        done = subprocess.run(("xcrun", "--find", "devicectl"), capture_output=True, text=True, timeout=_LIMIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def with_devicectl() -> None:
    """Let coremltools find devicectl, which it looks for in PATH and calls by name: of this process alone."""
    if (found := devicectl_path()) and shutil.which("devicectl") is None:
        os.environ["PATH"] += os.pathsep + str(Path(found).parent)


class DeviceRuntime:
    """Packages on a device, through an app that is built (minutes, the first time), signed and started there."""

    def __init__(self, identifier: str, credentials: Credentials) -> None:
        with_devicectl()
        os.environ["TQDM_DISABLE"] = "1"  # a progress bar for every file that is copied
        from coremltools.models.ml_program.experimental import remote_device as remote

        # One loop for all: the wrappers keep the one that they were loaded in.
        self._loop = asyncio.Runner()
        device = next(device for device in remote.Device.get_devices() if device.identifier == identifier)
        # `find_device` has seen that it is connected, which the list does not always say.
        device = dataclasses.replace(device, state=remote.DeviceState.CONNECTED)
        signing = remote.AppSigningCredentials(
            development_team=credentials.development_team or "",
            provisioning_profile_uuid=credentials.provisioning_profile,
            bundle_identifier=credentials.bundle_identifier,
        )
        # By what it is signed with: coremltools uses an app again that it finds built.
        built = cache_folder() / "modelrunner" / key_of(dataclasses.asdict(credentials))[:16]
        self._use = use_new(built)
        try:
            self._device = self._wait(device.prepare_for_model_debugging(signing, working_directory=built))
        except DeviceError as error:
            raise BenchError(
                f"the app on {device.name!r} cannot be built, signed or started: {error}; what it is signed with is "
                "given by --development-team, or by --provisioning-profile and --bundle-identifier"
            ) from error

    def open(self, target: Target) -> Opened:
        loaded = self._load(target)
        placed, notes = None, list(NOTES)
        try:
            placed = placement(self._wait(loaded.wrapper.retrieve_compute_plan()))
        except DeviceError as error:
            notes.append(f"no compute plan: {error}")
        if loaded.array_inputs:
            notes.append("images were given as arrays, without Core ML's conversion of an image")
        return Opened(
            loaded, cold_load_ns=loaded.wrapper.load_duration_in_nano_seconds, placement=placed, notes=tuple(notes)
        )

    def reopen(self, target: Target) -> Loaded:
        return self._load(target)

    def load_ns(self, target: Target) -> int | None:
        return None

    def close(self) -> None:
        """Stop the app, and with it what is loaded."""
        self._device.session.stop()
        # When its models are deleted, coremltools hands a coroutine to a thread, where it is never awaited.
        warnings.simplefilter("ignore", RuntimeWarning)

    def _load(self, target: Target) -> "_DeviceLoaded":
        return _DeviceLoaded(self._device, target, self._wait)

    def _wait(self, doing: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self._loop.run(doing)
        except Exception as error:  # of subprocesses, of coremltools and of the device: no common class
            raise DeviceError(_told(error)) from error


class _DeviceLoaded:
    def __init__(self, device: Any, target: Target, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        import coremltools as ct
        from coremltools.models.ml_program.experimental.async_wrapper import MLModelAsyncWrapper

        self._wait = wait
        spec = specification(target.path)
        self.array_inputs = take_arrays(spec)
        self._inputs = _inputs(spec)
        self.wrapper = MLModelAsyncWrapper.from_spec_or_path(
            spec_or_path=spec,
            weights_dir=str(target.path / "Data" / "com.apple.CoreML" / "weights"),
            compute_units=ct.ComputeUnit[target.compute_units.upper()],
            device=device,
        )
        wait(self.wrapper.load())

    def predict(self) -> object:
        return self._wait(self.wrapper.predict(self._inputs))

    def model_ns(self) -> int | None:
        taken: int | None = self.wrapper.last_predict_duration_in_nano_seconds
        return taken


def take_arrays(spec: Any) -> bool:
    """Let a specification take the array behind each image, with the same program; returns whether it had images."""
    from coremltools import proto

    images = [feature for feature in spec.description.input if feature.type.WhichOneof("Type") == "imageType"]
    function = spec.mlProgram.functions[spec.description.defaultFunctionName or "main"]
    types = {value.name: value.type.tensorType for value in function.inputs}
    arrays = proto.FeatureTypes_pb2.ArrayFeatureType
    for feature in images:
        tensor = types[feature.name]
        array = feature.type.multiArrayType  # takes the place of the image
        array.shape.extend(dimension.constant.size for dimension in tensor.dimensions)
        is_half = tensor.dataType == proto.MIL_pb2.DataType.FLOAT16
        array.dataType = arrays.FLOAT16 if is_half else arrays.FLOAT32
    return bool(images)


def _inputs(spec: Any) -> dict[str, np.ndarray]:
    """Noise in the shapes that the model declares; pixel values where it declared an image before."""
    draw = np.random.default_rng(_SEED)
    inputs = {}
    for feature in spec.description.input:
        if feature.type.WhichOneof("Type") != "multiArrayType":
            raise PackageError(f"input {feature.name!r}: a device takes arrays and images only")
        inputs[feature.name] = draw.uniform(0, 255, tuple(feature.type.multiArrayType.shape)).astype(np.float32)
    return inputs


def _told(error: Exception) -> str:
    """In one line; coremltools keeps what a tool printed as bytes."""
    message = getattr(error, "message", None) or _printed(error) or str(error)
    text = message.decode(errors="replace") if isinstance(message, bytes) else str(message)
    return " ".join(text.split()) or type(error).__name__


def _printed(error: Exception) -> str:
    """The last lines of a tool that failed: coremltools hands on its standard error, which went to standard output."""
    cause = error.__cause__ or error.__context__
    if not isinstance(cause, subprocess.CalledProcessError):
        return ""
    text = cause.stderr or cause.stdout or b""
    lines = (text.decode(errors="replace") if isinstance(text, bytes) else text).split("\n")
    return " ".join(["", *[line for line in lines if line.strip()][-_LAST_LINES:]])
