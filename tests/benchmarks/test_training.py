"""Images a second of a fine-tuning beside a plain loop in torch: same network, photographs and kind of augmentation.

On the GPU where there is one, in mixed precision, else on the CPU. The plain loop is what torch's documentation shows,
once as it is and once with activations in channels last: a DataLoader with a process for each processor, torchvision's
transforms, one pass forward and back. The ways take turns.

Never a timed test: `make benchmark` prints the speeds, nothing here asserts one.
"""

import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import coreml_prune_bench.models.networks  # noqa: F401  (registers the networks)
from coreml_prune_bench.bench.training_images import TrainingImages
from coreml_prune_bench.data import open_data
from coreml_prune_bench.models.config import TrainingConfig
from coreml_prune_bench.models.devices import choose_device, low_precision
from coreml_prune_bench.models.processors import processors
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.training import IMAGE_MEAN, IMAGE_STD, Session, train
from coreml_prune_bench.models.weights import untrained_model

SIZE, BATCH, STEPS, ROUNDS, CLASSES = 64, 64, 12, 3, 8
_STARTING_STEPS = 2
"""Of a loop, not counted: a GPU's algorithms are chosen, the first photographs are waited for."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of JPEG files of 64x64, as many as the steps take."""
    folder = tmp_path_factory.mktemp("photographs")
    draw = np.random.default_rng(0)
    for number in range(STEPS * BATCH):
        coarse = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        place = folder / "train" / f"class-{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(coarse).resize((SIZE, SIZE)).save(place / f"{number}.jpg")
    (folder / "val").symlink_to(folder / "train")
    return folder


@pytest.mark.parametrize("network", ["mobilenet_v2", "mobilenet_v3_small", "resnet50"])
def test_a_training_beside_a_plain_loop(benchmark, network: str, photographs: Path) -> None:
    device = choose_device("auto")
    data = open_data(f"imagefolder:{photographs}")
    assert data.train
    members = np.arange(len(data.train))

    def model() -> nn.Module:
        return untrained_model(get_network(network), CLASSES, image_size=SIZE)

    def ours() -> float:
        assert data.train
        ends_s: list[float] = []
        images = TrainingImages(data, data.train, members)
        config = TrainingConfig(epochs=1, batch_size=BATCH, learning_rate=0.01)
        train(
            model(),
            images,
            config,
            order_seed=0,
            session=Session(device),
            progress=lambda done, total: ends_s.append(_now_s(device)),
        )
        return _images_a_second(ends_s)

    found: dict[str, list[float]] = {"ours": [], "plain": [], "plain, channels last": []}

    def take_turns() -> None:
        found["ours"].append(ours())
        found["plain"].append(plain(model(), photographs, device, torch.contiguous_format))
        found["plain, channels last"].append(plain(model(), photographs, device, torch.channels_last))

    benchmark.pedantic(take_turns, rounds=ROUNDS, iterations=1)
    fastest = {way: max(speeds) for way, speeds in found.items()}
    benchmark.extra_info.update(training=True, network=network, device=device.type, images_a_second=fastest)
    assert all(len(speeds) == ROUNDS for speeds in found.values())


def plain(model: nn.Module, photographs: Path, device: torch.device, layout: torch.memory_format) -> float:
    """Images a second."""
    model.to(device, memory_format=layout).train()  # type: ignore[call-overload]  # torch's stub lacks it
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    views = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, (0.25, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGE_MEAN, IMAGE_STD),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(photographs / "train"), views),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=len(processors()),
        pin_memory=device.type == "cuda",
    )
    precision = low_precision(device)
    ends_s: list[float] = []
    for images, labels in loader:
        inputs: Tensor = images.to(device, memory_format=layout)
        with torch.autocast(device.type, precision, enabled=precision is not None):
            loss = functional.cross_entropy(model(inputs), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends_s.append(_now_s(device))
    return _images_a_second(ends_s)


def _now_s(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _images_a_second(ends_s: list[float]) -> float:
    counted = ends_s[_STARTING_STEPS - 1 :]
    return BATCH * (len(counted) - 1) / (counted[-1] - counted[0])
