"""From JPEG files to top-1: evaluation of a package against a plain loop in torch, and of six packages against one.

The files are photographs of their original size, each several times so that starting up does not count. The ways take
turns, so that what else the machine does meets them alike. Translated packages are in their cache; prepared images are
as the name of each way says.

Never a timed test: `make benchmark` prints the speeds, nothing here asserts one.
"""

import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import coreml_prune_bench.models.networks  # noqa: F401
from coreml_prune_bench.accuracy.evaluate import evaluate
from coreml_prune_bench.core.cache_folder import cache_folder
from coreml_prune_bench.data import Split, open_data
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.pruning.algorithm import prune
from coreml_prune_bench.models.pruning.coreml import to_sparse_coreml
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.training import IMAGE_MEAN, IMAGE_STD
from coreml_prune_bench.models.weights import initial_model, load_pretrained, untrained_model
from tests.benchmarks.test_speed import seconds_of
from tests.sample import SAMPLE, needs_sample

REPEATS = 5
THREADS = 2
ROUNDS = 3
PACKAGES = 6

pytestmark = needs_sample


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to the original files, REPEATS of each."""
    original = SAMPLE / "imagenet-original"
    folder = tmp_path_factory.mktemp("photographs")
    shutil.copy(original / "classes.txt", folder)
    for file in (original / "val").glob("*/*"):
        place = folder / "val" / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        for number in range(REPEATS):
            (place / f"{number}-{file.name}").symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def split(photographs: Path) -> Split:
    return open_data(f"imagefolder:{photographs}").val


def test_from_files_to_top1(benchmark, photographs: Path, split: Split, tmp_path: Path) -> None:
    network = get_network("mobilenet_v2")
    model = initial_model(network, load_pretrained(network, SAMPLE / "weights"), 1000).eval()
    package = tmp_path / "mobilenet_v2.mlpackage"
    to_coreml(model, 224).save(str(package))
    top1: dict[str, float] = {}

    def eager() -> None:
        top1["eager"] = top1_in_torch(model, photographs)

    def ours() -> None:
        ((predictions,), _) = evaluate([package], open_data(f"imagefolder:{photographs}").val)
        top1["ours"] = predictions.top1

    eager_s: list[float] = []
    cold_s: list[float] = []

    def take_turns() -> None:
        eager_s.append(seconds_of(eager))
        forget_images()
        cold_s.append(seconds_of(ours))

    benchmark.pedantic(ours, setup=take_turns, rounds=ROUNDS, warmup_rounds=1)
    assert top1["ours"] == pytest.approx(top1["eager"], abs=0.01)  # the package's weights are Float16
    benchmark.extra_info.update(evaluated=network.name, images=len(split), eager_s=min(eager_s), cold_s=min(cold_s))


def test_several_packages_in_one_pass(benchmark, split: Split, tmp_path: Path) -> None:
    network = get_network("mobilenet_v3_small")
    model = untrained_model(network, 1000).eval()
    packages = [tmp_path / f"{number}.mlpackage" for number in range(PACKAGES)]
    for number, package in enumerate(packages):
        task = PruningTask(network, model, 224, None, 0, progress=lambda done, total: None)
        to_sparse_coreml(prune(PostTrainingConfig(sparsity=0.3 + number / 10), task)).save(str(package))
    one_s: list[float] = []

    def all_of_them() -> None:
        evaluate(packages, split, image_cache=False)

    def take_turns() -> None:
        one_s.append(seconds_of(lambda: evaluate(packages[:1], split, image_cache=False)))

    benchmark.pedantic(all_of_them, setup=take_turns, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info.update(together=network.name, packages=PACKAGES, images=len(split), one_s=min(one_s))


@torch.inference_mode()
def top1_in_torch(model: torch.nn.Module, photographs: Path) -> float:
    """As torchvision's reference evaluation goes about it."""
    torch.set_num_threads(THREADS)
    prepare = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(IMAGE_MEAN, IMAGE_STD),
        ]
    )
    images = ImageFolder(str(photographs / "val"), prepare)
    order = (photographs / "classes.txt").read_text().split()
    labels = torch.tensor([order.index(name) for name in images.classes])
    right = 0
    for batch, folders in DataLoader(images, batch_size=32, num_workers=THREADS):
        right += int((model(batch).argmax(1) == labels[folders]).sum())
    return right / len(images)


def forget_images() -> None:
    """Prepared images and hashes of files; translated packages stay."""
    for kind in ("images", "digests"):
        shutil.rmtree(cache_folder() / kind, ignore_errors=True)
