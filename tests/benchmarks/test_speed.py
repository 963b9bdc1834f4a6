"""Speed of the portable runtime against torch eager: the same sparse network, the same images, in one run.

Never a timed test: `make benchmark` prints the ratios, nothing here asserts one.
"""

import numpy as np
import pytest
import torch

import models.networks  # noqa: F401
from harness.runtimes import portable
from models.config import PostTrainingConfig
from models.network import get_network
from models.pruning import PruningJob, prune
from models.training import normalize
from models.weights import untrained_model

SIZE = 224


@pytest.fixture(scope="module", params=["mobilenet_v2", "mobilenet_v3_small", "resnet50"])
def engines(request, tmp_path_factory):
    """A network pruned to 50 %, as (name, torch module, package)."""
    network = get_network(request.param)
    model = untrained_model(network, 1000).eval()
    job = PruningJob(network, model, SIZE, None, 0, progress=lambda done, total: None)
    path = tmp_path_factory.mktemp("package") / f"{network.name}.mlpackage"
    prune(PostTrainingConfig(sparsity=0.5), job).package.save(str(path))
    return network.name, model, portable.load(path)


@pytest.mark.parametrize("engine", ["torch", "portable"])
@pytest.mark.parametrize("batch", [1, 32])
def test_images_a_second(benchmark, engines, batch, engine):
    name, model, package = engines
    images = np.random.default_rng(0).integers(0, 256, (batch, SIZE, SIZE, 3), dtype=np.uint8)

    @torch.inference_mode()
    def eager():
        return model(normalize(images))

    run = eager if engine == "torch" else lambda: package.predict_batch({"image": images})
    benchmark.group = f"{name}, batch {batch}"
    benchmark.extra_info.update(network=name, batch=batch, engine=engine)
    benchmark.pedantic(run, rounds=20 if batch == 1 else 7, warmup_rounds=2)
