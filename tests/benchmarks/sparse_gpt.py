"""SparseGPT beside Core ML Tools': `python -m tests.benchmarks.sparse_gpt NETWORK [ROUNDS] [IMAGES]` prints JSON.

In each round both prune the same network, on images of noise at 224 x 224 in batches of 16, to 50 %, all layers but
depthwise ones; who is first changes from round to round. Weights are random. Seconds are wall-clock seconds.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import coreml_prune_bench.models.networks  # noqa: F401  (registers the networks)
from coreml_prune_bench.models.layers import is_depthwise, prunable_layers
from coreml_prune_bench.models.pruning.sparse_gpt.walk import prune_stages
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.training import calibration_batches
from coreml_prune_bench.models.weights import untrained_model
from tests.benchmarks.costs import CLASSES, IMAGES, SIZE, Noise
from tests.models.layerwise import CONFIG, prune_by_coremltools

BATCH = 16


def main(network: str, rounds: int, count: int) -> dict[str, object]:
    known = get_network(network)
    batches = list(calibration_batches(Noise(count), count, BATCH))
    seconds: dict[str, list[float]] = {"ours": [], "coremltools": []}
    weights: dict[str, dict[str, Tensor]] = {}

    def ours(model: nn.Module) -> None:
        layers = {name: layer for name, layer in prunable_layers(model).items() if not is_depthwise(layer)}
        prune_stages(list(known.sequential(model)), batches, layers, dict.fromkeys(layers, CONFIG))

    def coremltools(model: nn.Module) -> None:
        prune_by_coremltools(model, known.sequential(model), batches)

    ways: list[Callable[[nn.Module], None]] = [ours, coremltools]
    for _ in range(rounds):
        for way in ways:
            model = untrained_model(known, CLASSES, image_size=SIZE).eval()
            started = time.perf_counter()
            way(model)
            seconds[way.__name__].append(round(time.perf_counter() - started, 1))
            weights[way.__name__] = {name: layer.weight.detach() for name, layer in prunable_layers(model).items()}
        ways.reverse()
    kept = [torch.cat([weight.flatten() != 0 for weight in found.values()]) for found in weights.values()]
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["coremltools"], strict=True)]
    return {
        "network": network,
        "images": count,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "ratios": [round(ratio, 3) for ratio in ratios],
        "median_ratio": round(statistics.median(ratios), 3),
        "masks_equal": round(float((kept[0] == kept[1]).float().mean()), 4),
    }


if __name__ == "__main__":
    network, *numbers = sys.argv[1:]
    defaults = [3, IMAGES["sparse-gpt"]]
    rounds, count = [int(number) for number in numbers] + defaults[len(numbers) :]
    sys.stdout.write(json.dumps(main(network, rounds, count)) + "\n")
