"""The final package predicts what the torch network does, on real images with real weights, dense and pruned."""

import logging

import numpy as np
import pytest
import torch

import models.networks  # noqa: F401
from harness.accuracy import evaluate
from harness.data import iterate, open_data
from harness.training_images import TrainingImages
from models.config import SparseGPTConfig
from models.conversion import to_coreml
from models.network import get_network
from models.pruning import PruningJob, prune
from models.training import normalize
from models.weights import initial_model, load_pretrained
from tests.conftest import SAMPLE, needs_sample

# Top-1 on the sample as its README gives it, from ONNX Runtime on torch's own export.
DENSE_TOP1 = {"mobilenet_v2": 83.57, "mobilenet_v3_small": 78.43, "resnet50": 80.57}


@needs_sample
@pytest.mark.slow
@pytest.mark.parametrize("name", DENSE_TOP1)
@pytest.mark.parametrize("kind", ["dense", "pruned"])
def test_the_package_and_torch_agree_on_the_sample(name, kind, tmp_path):
    network = get_network(name)
    data = open_data(f"imagefolder:{SAMPLE / ('imagenet-sample-rot180' if 'v3' in name else 'imagenet-sample')}")
    assert data.train
    model = initial_model(network, load_pretrained(network, SAMPLE / "weights"), 1000)
    if kind == "dense":
        package = to_coreml(model, 224)
    else:
        train = TrainingImages(data, data.train, np.arange(len(data.train)))
        job = PruningJob(network, model, 224, train, 0, progress=lambda done, total: None)
        package = prune(SparseGPTConfig(sparsity=0.5, calibration_samples=32, batchnorm_samples=256), job).package
    path = tmp_path / f"{name}.mlpackage"
    package.save(str(path))
    predictions, _ = evaluate(path, data.val)
    expected = []
    with torch.inference_mode():
        for batch in iterate(data.val, 224, batch_size=32):
            expected += model(normalize(batch.images)).argmax(1).tolist()
    agreement = np.mean([top[0] == best for top, best in zip(predictions.top5, expected, strict=True)])
    logging.getLogger(__name__).info(
        "%s %s: agreement %.2f %%, top-1 %.2f %%", name, kind, 100 * agreement, 100 * predictions.top1
    )
    assert agreement >= 0.995
    if kind == "dense":
        assert 100 * predictions.top1 == pytest.approx(DENSE_TOP1[name], abs=0.5)
