"""What the steps cost: `python -m tests.benchmarks.costs NETWORK STEP [IMAGES]` prints a line of JSON.

STEP: sparse-gpt, sensitivity, reconstruction, conversion, or evaluation, which is predictions of the portable runtime
for images that are there. Weights are random and images noise, on which none of these depends. The arithmetic limit:
floating-point operations of convolutions and matrix products, at the rate at which this machine multiplies large
matrices. It is counted on 16 and 32 images and drawn on to the number that was timed; of a reconstruction, for a few
steps of a fit and on to all.
"""

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import coreml_prune_bench.models.networks  # noqa: F401  (registers the networks)
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.pruning.algorithm import prune
from coreml_prune_bench.models.pruning.blockwise_reconstruction.config import ReconstructionConfig
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.pruning.sensitivity import LEVELS, layer_effects
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.training import calibration_batches
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.runtimes import portable

SIZE, CLASSES = 224, 1000
IMAGES = {"sparse-gpt": 128, "sensitivity": 16, "reconstruction": 300, "conversion": 0, "evaluation": 640}
_BATCH = 32
_MATRIX, _PRODUCTS = 2048, 5
_STEPS = ReconstructionConfig(sparsity=0.5).steps


class Noise:
    def __init__(self, count: int) -> None:
        coarse = np.random.default_rng(0).integers(0, 256, (count, SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
        self._images = coarse.repeat(8, axis=1).repeat(8, axis=2)

    def __len__(self) -> int:
        return len(self._images)

    def images(self, indices: np.ndarray, epoch: int | None) -> np.ndarray:
        return self._images[indices]

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return indices % CLASSES


def step_of(name: str, network: str, count: int, steps: int = _STEPS) -> Callable[[], object]:
    """The step, all that is not part of it done before. steps: of a reconstruction's fit."""
    known = get_network(network)
    model = untrained_model(known, CLASSES, image_size=SIZE).eval()
    images = Noise(max(count, 2))
    if name == "conversion":
        return lambda: to_coreml(model, SIZE)
    if name == "evaluation":
        return _evaluation(model, images)
    if name == "sensitivity":
        batches = list(calibration_batches(images, count, min(count, 32)))
        labels = torch.from_numpy(images.labels(np.arange(count)))
        return lambda: list(layer_effects(known, model, batches, labels, LEVELS))
    configs: dict[str, Callable[[], PruningConfig]] = {
        "sparse-gpt": lambda: SparseGPTConfig(sparsity=0.5, calibration_samples=count),
        "reconstruction": lambda: ReconstructionConfig(sparsity=0.5, calibration_samples=count, steps=steps),
    }
    task = PruningTask(known, model, SIZE, images, 0, progress=lambda done, total: None)
    return lambda: prune(configs[name](), task)


def _evaluation(model: torch.nn.Module, images: Noise) -> Callable[[], object]:
    with TemporaryDirectory() as folder:
        package = Path(folder) / "network.mlpackage"
        to_coreml(model, SIZE).save(str(package))
        loaded = portable.load(package, many=True)
    (feature,) = loaded.inputs
    batches = [images.images(np.arange(start, start + _BATCH), None) for start in range(0, len(images), _BATCH)]
    loaded.predict_batch({feature.name: batches[0]})  # it tries which size of parts is fastest
    return lambda: [loaded.predict_batch({feature.name: batch}) for batch in batches]


def operations(name: str, network: str, count: int, steps: int = _STEPS) -> int:
    """Floating-point operations of the step; of an evaluation, those of the network in torch."""
    own = {torch.ops.aten.addmm_: _addmm, torch.ops.aten.convolution_backward: _convolution_backward}
    counter = FlopCounterMode(display=False, custom_mapping=own)
    if name == "evaluation":
        model = untrained_model(get_network(network), CLASSES, image_size=SIZE).eval()
        with counter, torch.no_grad():
            model(torch.zeros(count, 3, SIZE, SIZE))
    else:
        with counter:
            step_of(name, network, count, steps)()
    return int(counter.get_total_flops())


def _drawn_on(name: str, network: str, count: int) -> float:
    """Floating-point operations of the step, from two smaller ones."""
    if name == "reconstruction":
        few, more = (operations(name, network, count, steps) for steps in (8, 16))
        return few + (more - few) * (_STEPS - 8) / 8
    few, more = (operations(name, network, images) for images in (16, 32))
    return few + (more - few) * (count - 16) / 16


def _addmm(own: Sequence[int], a: Sequence[int], b: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * a[0] * a[1] * b[1]


def _convolution_backward(
    gradient: Sequence[int], inputs: Sequence[int], weight: Sequence[int], *others: Any, **__: Any
) -> int:
    """As many as forward for each of the gradients of inputs and weight; torch's own count knows no groups."""
    wanted = others[-1][:2]
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * sum(wanted)


def rate() -> float:
    """Floating-point operations a second of processor time, in the fastest of a few products of large matrices."""
    matrix = torch.rand(_MATRIX, _MATRIX)
    taken = []
    for _ in range(_PRODUCTS):
        started = time.process_time()
        matrix @ matrix
        taken.append(time.process_time() - started)
    return 2 * _MATRIX**3 / min(taken)


def main(network: str, name: str, count: int) -> dict[str, Any]:
    reached = rate()
    step = step_of(name, network, count)
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    step()
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    found: dict[str, Any] = {
        "network": network,
        "step": name,
        "images": count,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_mebibytes": round(after.ru_maxrss / 1024),
        "peak_before_mebibytes": round(before.ru_maxrss / 1024),
    }
    if count:
        total = _drawn_on(name, network, count)
        limit_s = total / reached
        found |= {
            "gflop": round(total / 1e9),
            "gflop_a_second": round(reached / 1e9),
            "limit_seconds": round(limit_s, 1),
        }
    return found


if __name__ == "__main__":
    network, step = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else IMAGES[step]
    sys.stdout.write(json.dumps(main(network, step, count)) + "\n")
