"""Which layers are pruned, and how much."""

import pytest

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.task import fitted_to, layer_sparsities, scope_in_words
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weights import untrained_model
from tests.models.modes import gpt, magnitude, post
from tests.models.tiny import dense, pruned
from tests.tiny_network import TINY


def test_the_first_key_of_layers_that_matches_decides():
    config = post(sparsity=0.5, layers={"features.6": 0.9, "Conv2d": 0.25, "features.*": 0.1, "Linear": 0})
    assert layer_sparsities(config, TINY, dense()) == {"features.0": 0.25, "features.6": 0.9}
    assert config.target_sparsity is None
    assert config.name == "Unstructured Sparsity 50%, features.6 90%, Conv2d 25%, features.* 10%"
    assert scope_in_words(config, TINY, dense()) == "conv + linear except depthwise, Linear"


def test_layers_alone_leave_all_others_dense():
    config = gpt(layers={"features.6": 0.75})
    assert layer_sparsities(config, TINY, dense()) == {"features.6": 0.75}
    assert scope_in_words(config, TINY, dense()) == "features.6"


def test_the_order_of_layers_makes_another_cell(tmp_path):
    def key(layers: str) -> str:
        text = 'description = "d"\nmodels = ["tiny"]\nweights = "none"\ndata.default = "digits"\ntraining.epochs = 1\n'
        text += f'[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\nlayers = {{ {layers} }}\n'
        (tmp_path / "own.toml").write_text(text)
        return lay_out(load_suite(str(tmp_path / "own.toml")), None)[1].build_key

    assert key('"features.0" = 0.25, "Conv2d" = 0') != key('"Conv2d" = 0, "features.0" = 0.25')


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            post(n_m_ratio=(2, 4)),
            r"tiny: features.0 \[16, 3, 3, 3\] cannot have '2:4 Sparsity': its 3 input channels are no multiple of 4; "
            r'leave what cannot dense: layers = { "features.0" = 0 }',
        ),
        (gpt(n_m_ratio=(2, 4)), r"features.0 \[16, 3, 3, 3\] .*: its 27 inputs, kernel positions among them, are"),
        (post(n_m_ratio=(1, 3), dim=0), r'"features.0" = 0, "features.6" = 0, "classifier" = 0'),
        (post(sparsity=0.5, block_size=10), r"features.0 .*: its 16 output channels are not two blocks of 10"),
        (magnitude(sparsity=0.5, granularity="per_channel"), r"classifier \[4, 128\] .*: a linear layer has no cha"),
        (
            post(n_m_ratio=(2, 4), scope=Scope(exclude=("features.0",))),
            r"features.3 \[16, 1, 3, 3\] .*: its 1 input channels are no multiple of 4",
        ),
    ],
)  # fmt: skip
def test_what_a_layer_cannot_take_is_one_line_with_the_layer_its_shape_and_the_fix(config, message):
    with pytest.raises(BenchError, match=message) as raised:
        pruned(config)
    assert "\n" not in str(raised.value)


def test_what_cannot_take_a_pattern_is_left_dense():
    network = get_network("mobilenet_v2")
    config = fitted_to(PostTrainingConfig(n_m_ratio=(2, 4)), network, untrained_model(network, 10))
    assert config.layers == (("features.0.0", 0.0),)
