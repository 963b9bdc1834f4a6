"""How runs of a session are waited for, and how a batch is shared out among threads."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import coreml_prune_bench.models.networks  # noqa: F401
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.runtimes.portable import load
from coreml_prune_bench.runtimes.portable.running import Running
from coreml_prune_bench.runtimes.portable.sharing import Sharing
from tests.interrupting import interrupted_after

SMALL, LARGE = np.zeros(1, np.float32), np.zeros(10, np.float32)


class Session:
    """Stands for one of ONNX Runtime. `seconds`: what a run takes by its input's size, until it is terminated."""

    def __init__(self, seconds: Callable[[int], float] = lambda size: 0.0) -> None:
        self._seconds = seconds
        self.ran_in: list[threading.Thread] = []
        self.terminated = 0

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="x", shape=["n"])]

    def run(self, names: list[str], feeds: dict[str, np.ndarray], options: Any = None) -> list[np.ndarray]:
        self.ran_in.append(threading.current_thread())
        until = time.monotonic() + self._seconds(feeds["x"].size)
        while time.monotonic() < until:
            if options is not None and options.terminate:
                self.terminated += 1
                raise RuntimeError("terminated")
            time.sleep(0.001)
        return [feeds["x"] + 1]


def test_what_is_known_to_be_brief_runs_where_it_is_called_and_all_else_in_another_thread() -> None:
    session = Session(lambda size: 0.15 if size == LARGE.size else 0.0)
    running = Running(session)
    here = threading.main_thread()
    for x in (SMALL, SMALL, LARGE, LARGE, SMALL):
        (y,) = running.run(["y"], {"x": x})
        assert np.array_equal(y, x + 1)
    assert [thread is here for thread in session.ran_in] == [False, True, False, False, True]


def test_what_depends_on_values_is_never_known_to_be_brief() -> None:
    session = Session()
    running = Running(session, time_varies=True)
    for _ in range(3):
        running.run(["y"], {"x": SMALL})
    assert threading.main_thread() not in session.ran_in


def test_parts_run_at_once_and_come_back_in_order() -> None:
    session = Session(lambda size: 0.05 * (3 - size))  # the first one takes longest
    results = Running(session, side_by_side=3).run_all(["y"], [{"x": np.full(n, n, np.float32)} for n in (1, 2, 3)])
    assert [result.tolist() for (result,) in results] == [[2], [3, 3], [4, 4, 4]]
    assert len(set(session.ran_in)) == 3


def test_a_signal_ends_all_that_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(lambda size: 60.0)
    with pytest.raises(KeyboardInterrupt), interrupted_after(0.2):
        Running(session, side_by_side=2).run_all(["y"], [{"x": SMALL}] * 4)
    assert session.terminated == len(session.ran_in) == 2  # the other two had not begun


def test_the_size_that_was_fastest_stays() -> None:
    now = 0.0
    sharing = Sharing(2, clock=lambda: now)
    a_sample = {1: 5.0, 2: 3.0, 4: 4.0, 8: 6.0}  # seconds
    sizes = []
    for _ in range(10):
        with sharing.parts(32) as parts:
            sizes.append(parts[0].stop)
            now += 32 * a_sample[sizes[-1]]
    assert [sorted(sizes[:4]), sorted(sizes[4:8])] == [[1, 2, 4, 8]] * 2
    assert sizes[8:] == [2, 2]
    with sharing.parts(5) as parts:  # what is left at the end
        assert [len(range(5)[part]) for part in parts] == [2, 2, 1]


def test_one_sample_before_a_batch_leaves_sizes_to_be_tried() -> None:
    sharing = Sharing(2)
    with sharing.parts(1) as parts:
        assert parts == [slice(0, 1)]
    with sharing.parts(32) as parts:
        assert len(parts) > 2


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_predictions_are_the_same_bits_however_a_batch_is_shared_out(tmp_path: Path, precision: Any) -> None:
    model = untrained_model(get_network("mobilenet_v3_small"), 10).eval()
    to_coreml(model, 32).save(str(tmp_path / "m.mlpackage"))
    pixels = np.random.default_rng(0).integers(0, 256, (35, 32, 32, 3), dtype=np.uint8)
    (expected,) = load(tmp_path / "m.mlpackage", precision=precision).predict_batch({"image": pixels}).values()
    for threads in (1, 2):
        many = load(tmp_path / "m.mlpackage", precision=precision, threads=threads, many=True)
        for _ in range(5):  # as many sizes are tried
            (found,) = many.predict_batch({"image": pixels}).values()
            assert found.tobytes() == expected.tobytes()
