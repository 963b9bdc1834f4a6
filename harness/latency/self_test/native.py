"""Checks 1 to 9: coremltools' native module."""

import functools
import gc
import importlib
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from coreml_prune_bench.latency.mac import run_tool
from coreml_prune_bench.latency.self_test.check import Here, NotApplicable
from coreml_prune_bench.runtimes import coreml

NATIVE = "coremltools.libcoremlpython"
METHODS = {
    "_MLModelProxy": (
        "auto_set_specification_version", "batchPredict", "compileModel", "create_model_asset_from_memory",
        "create_model_asset_from_path", "get_all_compute_devices", "get_available_compute_devices",
        "get_compiled_model_path", "get_compute_plan", "get_last_predict_duration_in_nano_seconds",
        "get_load_duration_in_nano_seconds", "get_model_structure", "maximum_supported_specification_version",
        "newState", "predict",
    ),
    "_State": ("read_state", "write_state"),
    "_MLNeuralEngineComputeDeviceProxy": ("get_total_core_count",),
    "_MLComputePlanProxy": (
        "get_compute_device_usage_for_mlprogram_operation", "get_compute_device_usage_for_neuralnetwork_layer",
        "get_estimated_cost_for_mlprogram_operation", "model_structure",
    ),
}  # fmt: skip
"""Of each class, as `strings` shows them in coremltools 9.0's wheel for macOS on arm64."""

TAKEN = ("int32", "float32", "float64")
REFUSED = ("int16", "int64", "uint8", "bool")
UNCERTAIN = ("int8", "float16")
"""int8 depends on the SDK that the wheel was built with; coremltools itself makes float32 of float16."""


def loads(here: Here) -> None:
    here.note("machine", platform.machine())
    translated = (run_tool(("sysctl", "-n", "sysctl.proc_translated")) or "").strip()
    here.note("sysctl.proc_translated", translated)
    here.expect(platform.machine() == "arm64", f"this Python is for {platform.machine()}, not arm64")
    here.expect(translated in ("", "0"), "this Python runs in Rosetta's translation")
    try:
        importlib.import_module(NATIVE)
    except ImportError as error:
        here.note("import", f"{type(error).__name__}: {error}")
        here.wrong(f"{NATIVE} does not load: {error}")
    else:
        here.note("import", "loaded")


def surface(here: Here) -> None:
    module = importlib.import_module(NATIVE)
    for name, expected in METHODS.items():
        kind = getattr(module, name, None)
        there = [method for method in dir(kind) if not method.startswith("_")]
        here.note(name, {method: getattr(kind, method).__doc__ for method in there if method in expected})
        here.note(f"{name}, besides", sorted(set(there) - set(expected)))
        lacking = sorted(set(expected) - set(there))
        here.expect(not lacking, f"{name} lacks {', '.join(lacking)}")


def element_types(here: Here) -> None:
    model = coreml.Model(here.package("small"))
    values: dict[str, Any] = {name: np.ones((1, 8), name) for name in sorted({*TAKEN, *REFUSED, *UNCERTAIN})} | {
        "list": [[1.0] * 8],
        "float": 1.0,
        "int": 1,
        "0-d": np.array(1.0, np.float32),
    }
    table = {name: _answer(functools.partial(model._model.predict, {"x": value})) for name, value in values.items()}
    here.note("table", table)
    for name in TAKEN:
        here.expect(table[name] == "taken", f"{name} is refused: {table[name]}")
    for name in (*REFUSED, "list", "float", "int", "0-d"):
        here.expect(table[name] != "taken", f"{name} is taken")


def results(here: Here) -> None:
    arrays = coreml.Model(here.package("results")).predict({"x": np.full((1, 8), 1.5, np.float32)})
    found = {name: [str(value.dtype), list(value.shape)] for name, value in arrays.items()}
    here.note("arrays", dict(sorted(found.items())))
    expected = {"half": "float32", "single": "float32", "whole": "int32"}
    for name, dtype in expected.items():
        here.expect(found[name] == [dtype, [1, 8]], f"{name} is {found[name]}, expected {dtype} [1, 8]")
    for name, mode, returned in (("picture", "RGB", "RGBA"), ("gray", "L", "L")):
        image = PIL.Image.new(mode, (16, 16), 100 if mode == "L" else (100, 50, 20))
        picture = coreml.Model(here.package(name)).predict({"image": image})["picture"]
        here.note(name, [picture.mode, list(picture.size)])
        here.expect(picture.mode == returned, f"an image {mode} comes as {picture.mode}, expected {returned}")
    for name, kind in (("labels", str), ("numbers", int)):
        answer = coreml.Model(here.package(name)).predict({"x": np.ones((1, 8), np.float32)})
        types = {key: _types(value) for key, value in sorted(answer.items())}
        here.note(name, types)
        here.expect(
            all(set(one) & {kind.__name__} for one in types.values()), f"classes of {name} come as {types}, not {kind}"
        )


def batches(here: Here) -> None:
    model = coreml.Model(here.package("light"))
    samples = [{"image": image} for image in _images(32)]
    single, single_ns = [], []
    for sample in samples:
        single.append(model.predict(sample)["scores"])
        single_ns.append(model.last_predict_ns)
    together = [answer["scores"] for answer in model.predict(samples)]
    batch_ns = model.last_predict_ns
    ratio = batch_ns / max(float(np.median(single_ns)), 1e-9)  # 0 where durations are no nanoseconds: see check 6
    difference = float(np.abs(np.array(together) - np.array(single)).max())
    here.note("batch_ns", batch_ns)
    here.note("single_ns", single_ns)
    here.note("difference", difference)
    here.expect(difference < 0.05, f"a batch's results differ from single ones by {difference:.3g}: another order?")
    here.expect(ratio > 3, f"a batch of 32 takes {ratio:.2g} times a single one's duration: is it of one sample?")


def durations(here: Here) -> None:
    took: dict[str, float] = {}
    for name in ("light", "heavy"):
        model = coreml.Model(here.package(name), compute_units="cpu_only")
        before = model._model._proxy.get_last_predict_duration_in_nano_seconds()
        sample = {"image": next(_images(1))}
        calls, told = [], []
        for _ in range(20):
            started = time.perf_counter_ns()
            model.predict(sample)
            calls.append(time.perf_counter_ns() - started)
            told.append(model._model._proxy.get_last_predict_duration_in_nano_seconds())
        here.note(name, {"before": before, "load": model.load_ns, "call_ns": calls, "model_ns": told})
        here.expect(before is None, f"before the first prediction it is {before!r}, not None")
        here.expect(all(isinstance(one, int) for one in told), "a duration is no int")
        share = float(np.median(told) / np.median(calls))
        here.expect(share <= 1.05, f"the model takes {share:.2g} of its call: not nanoseconds?")
        here.expect(share > 0.01, f"the model takes {share:.2g} of its call: not nanoseconds?")
        took[name] = float(np.median(calls))
    here.expect(
        took["heavy"] > 3 * took["light"], "a network of ten times the work takes less than three times as long"
    )


def errors(here: Here) -> None:
    small, picture = coreml.Model(here.package("small")), coreml.Model(here.package("picture"))
    right, wrong = np.ones((1, 8), np.float32), np.ones((2, 3), np.float32)  # (kept: check 9 is for those that go)
    texts = {
        "missing input": _error(lambda: small._model.predict({})),
        "wrong shape": _error(lambda: small._model.predict({"x": wrong})),
        "wrong size": _error(lambda: picture._model.predict({"image": PIL.Image.new("RGB", (4, 4))})),
        "no package": _error(lambda: _compiled(_damaged(here, "Manifest.json"))),
        "no weights": _error(lambda: _loaded(_damaged(here, "weight.bin"))),
        "unknown function": _error(lambda: _loaded(here.package("small"), "no_such_function")),
    }
    here.note("texts", texts)
    small._model.predict({"x": right})  # and it goes on
    for name, (kind, text) in texts.items():
        here.expect(kind == "RuntimeError", f"{name}: {kind}, not RuntimeError")
        if name not in ("no package", "no weights"):  # which fail while compiling
            here.expect("NSLocalizedDescription" in text, f"{name}: the text is no userInfo: {text}")


def state(here: Here) -> None:
    if not here.loads("stateful"):
        raise NotApplicable("states are there from macOS 15 on")
    model = coreml.Model(here.package("stateful"), compute_units="cpu_only")  # how exact the others are: check 16
    x = np.ones((1, 8), np.float32)
    memory = model.make_state()
    answers = [float(np.asarray(model.predict({"x": x}, memory)["y"]).flat[0]) for _ in range(2)]
    memory.write_state("sum", np.full((1, 8), 5, np.float32))
    read = float(np.asarray(memory.read_state("sum")).flat[0])
    without = _error(lambda: model._model.predict({"x": x}))
    here.note("answers", answers)
    here.note("written and read", read)
    here.note("without a state", without)
    here.expect(answers == [1.0, 2.0], f"a sum over two predictions of 1 is {answers}")
    here.expect(read == 5, f"5 was written into a state, and {read:g} read")
    here.expect(without[0] == "RuntimeError", "a stateful model predicts without a state")


def lifetime(here: Here) -> None:
    model = coreml.Model(here.package("small"))
    for turn in range(5):
        for _ in range(20):
            model._model.predict({"x": np.random.default_rng(turn).standard_normal((1, 8)).astype(np.float32)})
        gc.collect()
        here.note("turns", turn + 1)
        until = time.perf_counter_ns() + 1_500_000_000
        while time.perf_counter_ns() < until:  # with Python at work, as it would be
            [object() for _ in range(1000)]
            time.sleep(0.05)


# --- what they share


def _images(count: int) -> Any:
    draw = np.random.default_rng(1)
    return (draw.standard_normal((1, 3, 64, 64)).astype(np.float32) for _ in range(count))


def _answer(act: Callable[[], Any]) -> str:
    try:
        act()
    except Exception as error:
        return f"{type(error).__name__}: {coreml.said(error)}"
    return "taken"


def _error(act: Callable[[], Any]) -> tuple[str, str]:
    try:
        act()
    except Exception as error:
        return type(error).__name__, str(error)
    return "no error", ""


def _types(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return [type(value).__name__]
    return sorted({type(key).__name__ for key in value} | {f"-> {type(one).__name__}" for one in value.values()})


def _damaged(here: Here, lacks: str) -> Path:
    path = here.scratch / f"without {lacks}" / "damaged.mlpackage"
    shutil.copytree(here.package("light"), path)
    for file in path.rglob(lacks):
        file.unlink()
    return path


def _compiled(package: Path) -> Path:
    from coremltools.models.utils import compile_model

    return Path(compile_model(str(package)))


def _loaded(package: Path, function: str | None = None) -> Any:
    import coremltools as ct

    return ct.models.CompiledMLModel(str(_compiled(package)), ct.ComputeUnit.CPU_ONLY, function)
