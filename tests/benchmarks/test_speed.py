"""Speed of the portable runtime against torch eager, and against ONNX Runtime on what torch itself exports.

The same sparse network, the same uint8 images, the same number of threads; the engines take turns, so that what else
the machine does meets them alike. And what loading a package costs, in processes of their own.

Never a timed test: `make benchmark` prints the ratios, nothing here asserts one.
"""

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import coreml_prune_bench.models.networks  # noqa: F401
from coreml_prune_bench.core.cache_folder import CACHE_VARIABLE
from coreml_prune_bench.models.batchnorm import fold_batchnorm
from coreml_prune_bench.models.pruning.algorithm import prune
from coreml_prune_bench.models.pruning.coreml import to_sparse_coreml
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.training import IMAGE_MEAN, IMAGE_STD, normalize
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.runtimes import portable

SIZE = 224
THREADS = 2
ROUNDS = {1: 30, 32: 7}
"""By batch size."""
LOADS = 5


@dataclass(frozen=True)
class Case:
    """`torch` has the weights of the package."""

    network: str
    torch: nn.Module
    package: Path


class OnImages(nn.Module):
    """From uint8 [N, H, W, 3] to logits, as the package computes them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(IMAGE_STD).view(3, 1, 1) * 255)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images.permute(0, 3, 1, 2).float() - self.mean) / self.std)


def pruned(name: str, sparsity: float, folder: Path) -> Case:
    network = get_network(name)
    model = untrained_model(network, 1000).eval()
    task = PruningTask(network, model, SIZE, None, 0, progress=lambda done, total: None)
    package = folder / f"{name}.mlpackage"
    to_sparse_coreml(prune(PostTrainingConfig(sparsity=sparsity), task)).save(str(package))
    return Case(name, model, package)


@pytest.fixture(scope="module", params=["mobilenet_v2", "mobilenet_v3_small", "resnet50"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return pruned(request.param, 0.5, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def exported(case: Case, tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    """What torch exports of the network, BatchNorm folded, in ONNX Runtime."""
    path = str(tmp_path_factory.mktemp("exported") / "m.onnx")
    module = OnImages(fold_batchnorm(case.torch, SIZE)).eval()
    images = torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)
    axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (images,),
            path,
            dynamo=False,
            opset_version=20,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes=axes,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("batch", ROUNDS)
def test_images_a_second(benchmark, case: Case, exported: onnxruntime.InferenceSession, batch: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (batch, SIZE, SIZE, 3), dtype=np.uint8)
    model = portable.load(case.package, threads=THREADS)
    torch.set_num_threads(THREADS)

    @torch.inference_mode()
    def eager() -> None:
        case.torch(normalize(images))

    others = {"torch": eager, "export": lambda: exported.run(None, {"image": images})}
    seconds: dict[str, list[float]] = {name: [] for name in others}

    def run_portable() -> None:
        model.predict_batch({"image": images})

    def take_turns() -> None:
        for name, run in others.items():
            run()  # brings its weights back into the CPU's caches
            seconds[name].append(seconds_of(run))
        run_portable()

    benchmark.group = f"{case.network}, batch {batch}"
    benchmark.pedantic(run_portable, setup=take_turns, rounds=ROUNDS[batch], warmup_rounds=1)
    benchmark.extra_info.update(
        network=case.network, batch=batch, others={name: min(times) for name, times in seconds.items()}
    )


def test_many_images_a_second(benchmark, case: Case, exported: onnxruntime.InferenceSession) -> None:
    """As a warm evaluation predicts: threads side by side, against threads that share each batch."""
    images = np.random.default_rng(0).integers(0, 256, (32, SIZE, SIZE, 3), dtype=np.uint8)
    model = portable.load(case.package, threads=THREADS, many=True)
    exported_s: list[float] = []

    def run_portable() -> None:
        model.predict_batch({"image": images})

    def take_turns() -> None:
        exported.run(None, {"image": images})
        exported_s.append(seconds_of(lambda: exported.run(None, {"image": images})))
        run_portable()

    benchmark.group = f"{case.network}, many"
    benchmark.pedantic(run_portable, setup=take_turns, rounds=ROUNDS[32], warmup_rounds=8)  # in which sizes are tried
    benchmark.extra_info.update(network=case.network, batch=32, many=True, others={"export": min(exported_s)})


def seconds_of(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@pytest.fixture(scope="module")
def sparse_resnet50(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return pruned("resnet50", 0.75, tmp_path_factory.mktemp("package"))


@pytest.mark.parametrize("state", ["cold", "cached"])
def test_load(benchmark, sparse_resnet50: Case, state: str, tmp_path: Path) -> None:
    """A process that loads a package: seconds of its imports and of the load, memory that the load takes at most."""
    found: list[dict[str, float]] = []

    def load() -> None:
        cache = tmp_path / (str(len(found)) if state == "cold" else "cache")
        command = [sys.executable, "-m", "tests.benchmarks.load_once", state, str(sparse_resnet50.package)]
        environment = {**os.environ, CACHE_VARIABLE: str(cache)}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout))

    # The warm-up fills the cache of the cached ones.
    benchmark.pedantic(load, rounds=LOADS, warmup_rounds=1)
    folded = fold_batchnorm(sparse_resnet50.torch, SIZE)
    dense_bytes = 4 * sum(parameter.numel() for parameter in folded.parameters())
    measured = found[1:]
    benchmark.extra_info.update(
        load=state,
        network=sparse_resnet50.network,
        imports_s=min(one["imports_s"] for one in measured),
        load_s=min(one["load_s"] for one in measured),
        growth=max(one["growth_bytes"] for one in measured) / dense_bytes,
    )
