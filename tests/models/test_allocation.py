"""Sparsities by layer: the least loss at the size of a uniform sparsity, against closed forms and a linear program."""

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.optimize import linprog

from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.pruning.allocation import allocate, allocated, loss_at
from coreml_prune_bench.models.pruning.blockwise_reconstruction.config import ReconstructionConfig
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from coreml_prune_bench.models.weights import untrained_model
from tests.tiny_network import TINY

LEVELS = (0.5, 0.75, 0.9)


def power(scale: float, exponent: float = 3.0) -> dict[float, float]:
    return {level: scale * level**exponent for level in LEVELS}


def bits(elements: dict[str, int], sparsities: dict[str, float], kept_bits: int = 16) -> float:
    """As the storage form has it: 16 bits of a dense weight; else a mask bit, and those of what stays."""
    return sum(n * (16 if (s := sparsities[name]) == 0 else kept_bits * (1 - s) + 1) for name, n in elements.items())


def test_layers_that_are_alike_are_pruned_alike():
    elements = {"a": 1000, "b": 4000, "c": 500}
    losses = {name: power(n / 1000) for name, n in elements.items()}
    assert all(s == pytest.approx(0.75, abs=0.01) for s in allocate(losses, elements, 0.75).values())


def test_the_closed_form_of_cubic_losses():
    """Minimize sum c s^3 with sum n s given: by Lagrange, s is proportional to the root of n / c."""
    elements = {"a": 10_000, "b": 40_000, "c": 20_000}
    scales = {"a": 3.0, "b": 6.0, "c": 4.0}
    roots = {name: math.sqrt(elements[name] / scales[name]) for name in elements}
    factor = 0.6 * sum(elements.values()) / sum(elements[name] * roots[name] for name in elements)
    found = allocate({name: power(scale) for name, scale in scales.items()}, elements, 0.6)
    assert found == pytest.approx({name: factor * root for name, root in roots.items()}, abs=0.011)  # the grid's step


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kept_bits", [16, 8])
def test_no_mixture_of_levels_of_the_same_size_loses_less(seed, kept_bits):
    """The optimum of the linear program over shares of every layer's levels bounds any choice from below."""
    draw = np.random.default_rng(seed)
    names = [f"layer{number}" for number in range(12)]
    elements = {name: int(draw.integers(100, 100_000)) for name in names}
    losses = {name: dict(zip(LEVELS, np.sort(draw.lognormal(0, 2, 3)).tolist(), strict=True)) for name in names}
    found = allocate(losses, elements, 0.7, kept_bits=kept_bits)
    budget = bits(elements, dict.fromkeys(names, 0.7), kept_bits)
    assert bits(elements, found, kept_bits) == pytest.approx(budget, rel=1e-3)
    grid = [0.0, *np.arange(0.01, 0.83, 0.01)]  # up to 1 - 0.6 x 0.3
    costs = [0.0 if level == 0 else loss_at(losses[name], level) for name in names for level in grid]
    sizes = [bits({name: elements[name]}, {name: level}, kept_bits) for name in names for level in grid]
    shares = np.kron(np.eye(len(names)), np.ones(len(grid)))
    best = linprog(costs, A_ub=[sizes], b_ub=[budget], A_eq=shares, b_eq=np.ones(len(names)))
    lost = sum(loss_at(losses[name], sparsity) for name, sparsity in found.items())
    # Between two levels of the grid a loss lies a little below the mixture of both.
    assert best.fun * 0.999 <= lost <= best.fun * 1.03


def test_what_costs_nothing_is_pruned_most_and_what_must_stay_stays():
    elements = {"free": 10_000, "usual": 50_000, "fatal": 1_000}
    losses = {"free": dict.fromkeys(LEVELS, 0.0), "usual": power(1.0), "fatal": dict.fromkeys(LEVELS, math.inf)}
    found = allocate(losses, elements, 0.75)
    assert (found["free"], found["fatal"]) == (0.85, 0)
    assert bits(elements, found) == pytest.approx(bits(elements, dict.fromkeys(elements, 0.75)), rel=1e-3)


@pytest.mark.parametrize("sparsity", [0.5, 0.75, 0.9, 0.99])
def test_every_layer_keeps_60_percent_of_what_it_would_keep_if_all_were_pruned_alike(sparsity):
    losses, elements = {"a": power(1.0), "b": power(1000.0)}, {"a": 1000, "b": 1000}
    found = allocate(losses, elements, sparsity)
    assert found["a"] == pytest.approx(1 - 0.6 * (1 - sparsity))
    assert bits(elements, found) == pytest.approx(bits(elements, dict.fromkeys(elements, sparsity)), rel=2e-3)


@pytest.mark.parametrize("exponent", [2.0, 3.0, 5.5])
def test_the_loss_between_levels_is_a_power_of_the_sparsity(exponent):
    assert loss_at(power(2.0, exponent), 0.6) == pytest.approx(2 * 0.6**exponent)
    assert loss_at(power(2.0, exponent), 0.95) == pytest.approx(2 * 0.95**exponent)
    assert loss_at({0.5: 1.0}, 0.25) == pytest.approx(1 / 8)


def test_a_loss_that_falls_with_sparsity_is_taken_as_noise():
    assert loss_at({0.5: 1.0, 0.75: 0.4, 0.9: 2.0}, 0.75) == pytest.approx(1.0)


def test_a_config_with_an_allocation_becomes_one_that_spells_it_out():
    config = SparseGPTConfig(sparsity=0.75, allocation="sensitivity", scope=Scope(exclude=("features.0",)))
    assert config.name == "Unstructured Sparsity 75%, allocated by sensitivity"
    assert config.target_sparsity is None
    losses = {"features.6": power(10.0), "classifier": power(0.1), "features.0": power(1.0), "features.3": power(1.0)}
    found = allocated(config, TINY, untrained_model(TINY, 10), losses)
    assert (found.allocation, found.scope, found.sparsity) == ("uniform", config.scope, 0.75)
    sparsities = dict(found.layers)
    assert set(sparsities) == {"features.6", "classifier"}  # SparseGPT leaves convolutions with groups dense
    elements = {"features.6": 16 * 32 * 9, "classifier": 128 * 10}
    assert bits(elements, sparsities) == pytest.approx(bits(elements, dict.fromkeys(elements, 0.75)), rel=1e-3)
    assert sparsities["classifier"] == 0.85


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (PostTrainingConfig, {"sparsity": 0.5}, "sees no images"),
        (SparseGPTConfig, {"n_m_ratio": (2, 4)}, "unstructured"),
        (SparseGPTConfig, {"sparsity": 0.5, "layers": {"classifier": 0.3}}, "leave out 'layers'"),
        (ReconstructionConfig, {"coremltools": {}}, "unstructured"),
    ],
)
def test_what_cannot_be_allocated_is_refused(config, values, message):
    with pytest.raises(ValidationError, match=message):
        config(allocation="sensitivity", **values)
