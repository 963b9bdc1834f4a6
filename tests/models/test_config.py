"""Pruning configs: settings that contradict each other, and the names of the modes."""

import pytest
from pydantic import ValidationError

from coreml_prune_bench.bench.suite import load_suite
from tests.models.modes import MODES, gpt, magnitude, post


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (post, {"sparsity": 0.5, "n_m_ratio": (2, 4)}, "given: sparsity, n_m_ratio"),
        (post, {"n_m_ratio": (4, 4)}, "0 < n < m"),
        (post, {"n_m_ratio": (2, 4), "block_size": 2}, "block_size: n_m_ratio and coremltools_yaml have"),
        (post, {"sparsity": 0.5, "dim": 1}, "dim: it is the dimension of blocks or of n:m"),
        (post, {"threshold": 0.1, "block_size": 2}, "a threshold is for single weights"),
        (post, {"n_m_ratio": (2, 4), "layers": {"a": 0.5}}, "all are 2:4 sparse"),
        (post, {"sparsity": 0.5, "layers": {"a": 1}}, "'a': expected a sparsity from 0 to less than 1, got 1"),
        (post, {"layers": {"a": 0}}, "give exactly one of"),
        (post, {"sparsity": 0.5, "quantize_bits": 8, "palettize_bits": 4}, "give one"),
        (gpt, {"sparsity": 0.5, "weight_dtype": "uint8", "quantize_bits": 8}, "quantizes already"),
        (magnitude, {"sparsity": 0.5, "block_size": 2, "dim": 1}, "blocks are of output channels"),
        (magnitude, {"n_m_ratio": (2, 4), "granularity": "per_kernel"}, "granularity: .* leave it out"),
        (magnitude, {"n_m_ratio": (2, 4), "initial_sparsity": 0.1}, "n:m sparsity starts from 0"),
        (magnitude, {"n_m_ratio": (29, 50)}, "rounds 29:50 down to 28:50"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(config, settings, message):
    with pytest.raises(ValidationError, match=message):
        config(**settings)


def test_configs_are_named_by_their_mode():
    assert {config.name for config, *_ in MODES} == {
        "2:4 Sparsity",
        "3:4 Sparsity, along output channels",
        "Block Structured Sparsity 50%, 2 output channels",
        "Block Structured Sparsity 50%, 4 input channels",
        "Unstructured Sparsity 50%, then 4-bit quantized",
        "2:4 Sparsity, then 6-bit palettized",
        "Unstructured Sparsity 50%, features.6 75%",
        "Unstructured Sparsity 50%, jointly 8-bit",
        "1:2 Sparsity, jointly 8-bit, BatchNorm re-estimated",
        "Per-Channel Sparsity 75%",
        "Per-Kernel Sparsity 50%",
    }


def test_the_suite_of_modes_has_eight_or_more_at_half_for_each_network():
    suite = load_suite("modes")
    for network in suite.models:
        names = {(config.algorithm, config.name) for config in suite.configs if config.is_for(network)}
        assert len(names) == sum(config.is_for(network) for config in suite.configs) >= 8
