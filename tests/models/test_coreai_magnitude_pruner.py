"""coreai-opt's pruner along our training: the sparsity that was asked, the mask kept, the config's rules."""

import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models.pruning.coreai_magnitude_pruner.config import CoreAIMagnitudePrunerConfig
from tests.models.tiny import IN_SCOPE, TRAINING, pruned


def config(**more: object) -> CoreAIMagnitudePrunerConfig:
    return CoreAIMagnitudePrunerConfig.model_validate({"sparsity": 0.75, "training": TRAINING, **more})


def test_without_it_a_line_says_how_to_get_it() -> None:
    try:
        import coreai_opt  # noqa: F401
    except ImportError:
        with pytest.raises(
            BenchError, match=r"needs coreai-opt, .*: pip install 'coreai-opt==0\.4\.0' 'torchao<0\.17'"
        ):
            pruned(config())
    else:
        pytest.skip("coreai-opt is installed")


def test_layers_end_at_their_sparsity() -> None:
    pytest.importorskip("coreai_opt", reason="no extra brings coreai-opt")
    found, model = pruned(config())
    assert set(found.targets) == IN_SCOPE
    for name in IN_SCOPE:
        weight = model.get_submodule(name).get_parameter("weight")
        assert (weight == 0).float().mean() == pytest.approx(0.75, abs=1 / weight.numel())
    assert not [name for name, _ in model.named_buffers() if "mask" in name]


def test_the_config_says_what_it_cannot() -> None:
    assert config().name == "Unstructured Sparsity 75%"
    with pytest.raises(ValueError, match=r"pruning_start \(0\.5\) is not below pruning_share \(0\.5\)"):
        config(pruning_start=0.5)
    with pytest.raises(ValueError, match="n_m_ratio"):
        CoreAIMagnitudePrunerConfig.model_validate({"n_m_ratio": [1, 2], "training": TRAINING})
    with pytest.raises(ValueError, match="not one of Core ML Tools' algorithms"):
        CoreAIMagnitudePrunerConfig.model_validate({"coremltools": {"x": 1}, "training": TRAINING})
