"""What the layers of a network cannot have is refused before anything is built."""

from pathlib import Path

import pytest

from coreml_prune_bench.bench.cells import Cell, lay_out
from coreml_prune_bench.bench.precheck import refuse_impossible
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.core.errors import BenchError


def suite_file(tmp_path: Path, config: str) -> Path:
    """A network that takes long to train, pruned as usual and then as `config` says."""
    path = tmp_path / "own.toml"
    path.write_text(
        'description = "d"\nmodels = ["tiny"]\nweights = "none"\ndata.default = "digits"\ntraining.epochs = 1000\n'
        '[[configs]]\nalgorithm = "post-training"\nsparsity = 0.75\n'
        f'[[configs]]\nalgorithm = "post-training"\n{config}\n'
    )
    return path


@pytest.mark.parametrize(
    ("command", "config", "message"),
    [
        ("run", "n_m_ratio = [2, 4]", "features.0 [16, 3, 3, 3] cannot have '2:4 Sparsity'"),
        ("build", 'sparsity = 0.5\nlayers = { "feature.0" = 0 }', "layers: 'feature.0' decides over no layer in scope"),
    ],
)
def test_it_is_refused_before_anything_is_built(refused, tmp_path, command, config, message):
    assert message in refused(command, "--suite", suite_file(tmp_path, config), "--results", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_key_of_layers_can_be_for_another_network_and_must_be_the_first_for_some_layer(tmp_path):
    def cells(layers: str) -> list[Cell]:
        return lay_out(load_suite(str(suite_file(tmp_path, f"sparsity = 0.5\nlayers = {{ {layers} }}"))), None)

    refuse_impossible(cells('"layer4.*" = 0.75'))
    with pytest.raises(BenchError, match=r"layers: 'features\.0' decides over no layer"):
        refuse_impossible(cells('Conv2d = 0.25, "features.0" = 0.1'))
