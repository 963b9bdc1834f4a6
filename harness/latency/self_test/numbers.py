"""Checks 16 to 20: what each compute unit computes, and in what time."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from coreml_prune_bench.latency import qos
from coreml_prune_bench.latency.self_test.check import Here, NotApplicable
from coreml_prune_bench.latency.self_test.planning import has_neural_engine, require_neural_engine
from coreml_prune_bench.runtimes import coreml, portable

_TOLERANCE = 0.02
"""Of Float16 in a network of a few layers, as a fraction of the scores' span: some ten times what rounding does."""

_IDLE_SECONDS = (0.0, 1.0, 5.0, 30.0)
_CALLS = 50


def parity(here: Here) -> None:
    units = [one for one in ("cpu_only", "cpu_and_ne", "all") if one == "cpu_only" or has_neural_engine()]
    images = [{"image": _image(seed)} for seed in range(8)]
    for name in filter(here.loads, ("light", "sparse", "palettized")):
        reference = {
            precision: np.array(
                [portable.load(here.package(name), precision=precision).predict(one)["scores"] for one in images]
            )
            for precision in ("float32", "float16")
        }
        span = float(np.ptp(reference["float32"]))
        for unit in units:
            model = coreml.Model(here.package(name), compute_units=unit)
            found = np.array([model.predict(one)["scores"] for one in images])
            errors = {precision: float(np.abs(found - right).max()) for precision, right in reference.items()}
            here.note(f"{name}, {unit}", errors | {"span": span})
            least = min(errors.values())
            here.expect(
                least < _TOLERANCE * span, f"{name} on {unit} is off by {least:.3g}, the scores' span is {span:.3g}"
            )


def speed_of_units(here: Here) -> None:
    require_neural_engine()
    took = {unit: _median_ms(_predicting(here, unit)) for unit in ("cpu_only", "cpu_and_ne", "all")}
    here.note("median_ms", took)
    here.expect(took["cpu_only"] > 1.5 * took["all"], "`all` is not faster than `cpu_only`: is the Neural Engine used?")
    here.expect(took["cpu_and_ne"] < 2 * took["all"], "`cpu_and_ne` takes twice as long as `all`")


def qos_classes(here: Here) -> None:
    if qos.current() is None:
        raise NotApplicable("this operating system has no classes of service")
    here.note("at first", qos.current())
    predict = _predicting(here, "cpu_only")
    took = {}
    for name in ("default", "utility", "background"):
        qos.become(name)
        here.expect(qos.current() == name, f"set to {name}, the thread's class is {qos.current()}")
        took[name] = _median_ms(predict)
    here.note("median_ms", took)
    here.expect(took["utility"] > 0.9 * took["default"], "`utility` is faster than `default`")
    here.expect(took["background"] > 0.9 * took["default"], "`background` is faster than `default`")


def idling(here: Here) -> None:
    require_neural_engine()
    predict = _predicting(here, "cpu_and_ne")
    usual = _median_ms(predict)
    first: dict[str, list[float]] = {}
    for seconds in _IDLE_SECONDS:
        first[f"{seconds:g} s"] = calls = []
        time.sleep(seconds)
        for _ in range(10):
            calls.append(_once_ms(predict))
        here.note(f"after {seconds:g} s", calls)
    for name, calls in first.items():
        here.expect(
            calls[0] < 10 * usual + 5, f"after {name} of idling a prediction takes {calls[0]:.0f} ms, else {usual:.2g}"
        )


def apple_gpu(here: Here) -> None:
    try:
        import torch
    except ImportError as error:
        raise NotApplicable("torch is not installed") from error
    from coreml_prune_bench.models import mps

    if not torch.backends.mps.is_available():
        raise NotApplicable("torch finds no Apple GPU")
    found = mps.examine()
    here.note("difference of copies", found.copied)
    here.note("difference of a training step", found.trained)
    here.expect(found.copied == 0, f"batches that were copied to it differ by {found.copied:.3g}")
    here.expect(found.trained < mps.TOLERANCE, f"a training step differs from the CPU's by {found.trained:.3g}")


def _predicting(here: Here, unit: str) -> Callable[[], Any]:
    model, sample = coreml.Model(here.package("heavy"), compute_units=unit), {"image": _image(0)}
    return lambda: model.predict(sample)


def _image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 3, 64, 64)).astype(np.float32)


def _median_ms(predict: Callable[[], Any]) -> float:
    for _ in range(10):
        predict()
    return float(np.median([_once_ms(predict) for _ in range(_CALLS)]))


def _once_ms(predict: Callable[[], Any]) -> float:
    before = time.perf_counter_ns()
    predict()
    return (time.perf_counter_ns() - before) / 1e6
