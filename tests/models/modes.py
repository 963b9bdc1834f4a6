"""Configs of every mode for the tiny network, with the pattern that each promises, worked out by hand."""

from collections.abc import Callable

import numpy as np

from coreml_prune_bench.models.pruning.magnitude_pruner.config import MagnitudePrunerConfig
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from tests.models.tiny import TRAINING

THREE_INPUTS = {"features.0": 0}
LAYERS = ("features.0", "features.6", "classifier")


def post(**changes) -> PostTrainingConfig:
    return PostTrainingConfig(**changes)


def gpt(**changes) -> SparseGPTConfig:
    return SparseGPTConfig(calibration_samples=40, **changes)


def magnitude(**changes) -> MagnitudePrunerConfig:
    return MagnitudePrunerConfig(training=TRAINING, **changes)


def anywhere(weight: np.ndarray) -> bool:
    return True


def of_inputs(n: int, m: int) -> Callable[[np.ndarray], bool]:
    return lambda w: ((w.reshape(len(w), w.shape[1] // m, m, -1) == 0).sum(axis=2) == n).all()


def of_outputs(n: int, m: int) -> Callable[[np.ndarray], bool]:
    return lambda w: ((w.reshape(len(w) // m, m, -1) == 0).sum(axis=1) == n).all()


def of_rows(n: int, m: int) -> Callable[[np.ndarray], bool]:
    return lambda w: ((w.reshape(-1, m) == 0).sum(axis=1) == n).all()


def output_blocks(size: int) -> Callable[[np.ndarray], bool]:
    return lambda w: np.isin((w.reshape(len(w) // size, size, -1) == 0).sum(axis=1), (0, size)).all()


def input_blocks(size: int) -> Callable[[np.ndarray], bool]:
    return lambda w: np.isin((w.reshape(len(w), w.shape[1] // size, size, -1) == 0).sum(axis=2), (0, size)).all()


def channels(w: np.ndarray) -> bool:
    return all((channel == 0).all() or (channel != 0).all() for channel in w)


def kernels(w: np.ndarray) -> bool:
    return all((kernel == 0).all() or (kernel != 0).all() for channel in w for kernel in channel)


SPARSE, QUANTIZED, PALETTIZED = "sparse", "sparse + blockwise-quantized", "sparse + palettized"


MODES = [
    (post(n_m_ratio=(2, 4), layers=THREE_INPUTS), of_inputs(2, 4), SPARSE, 16),
    (post(n_m_ratio=(3, 4), dim=0), of_outputs(3, 4), SPARSE, 16),
    (post(sparsity=0.5, block_size=2), output_blocks(2), SPARSE, 16),
    (post(sparsity=0.5, block_size=4, dim=1, layers=THREE_INPUTS), input_blocks(4), SPARSE, 16),
    (post(sparsity=0.5, quantize_bits=4), anywhere, QUANTIZED, 4),
    (post(n_m_ratio=(2, 4), layers=THREE_INPUTS, palettize_bits=6), of_inputs(2, 4), PALETTIZED, 6),
    (post(sparsity=0.5, layers={"features.6": 0.75, "Linear": 0}), anywhere, SPARSE, 16),
    (gpt(n_m_ratio=(2, 4), layers=THREE_INPUTS), of_rows(2, 4), SPARSE, 16),
    (gpt(sparsity=0.5, weight_dtype="uint8"), anywhere, QUANTIZED, 8),
    (gpt(n_m_ratio=(1, 2), weight_dtype="uint8", layers=THREE_INPUTS, batchnorm_samples=40), anywhere, QUANTIZED, 8),
    (magnitude(n_m_ratio=(2, 4), layers=THREE_INPUTS), of_inputs(2, 4), SPARSE, 16),
    (magnitude(sparsity=0.5, block_size=2), output_blocks(2), SPARSE, 16),
    (magnitude(sparsity=0.75, granularity="per_channel", layers={"Linear": 0}), channels, SPARSE, 16),
    (magnitude(sparsity=0.5, granularity="per_kernel", layers={"Linear": 0}), kernels, SPARSE, 16),
]
