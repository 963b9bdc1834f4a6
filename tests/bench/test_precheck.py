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
        ("run", 'sparsity = 0.5\nlayers = { "feature.0" = 0 }', "same layers; did you mean 'features.0'?"),
        (
            "run",
            'sparsity = 0.5\nscope.exclude = ["features.0", "clasifier.*"]',
            "scope.exclude: 'clasifier.*' names no convolution or linear layer of tiny",
        ),
        ("build", 'sparsity = 0.5\nscope.exclude = ["clasifier"]', "as wildcards; did you mean 'classifier'?"),
        ("run", 'sparsity = 0.5\nscope.exclude = ["features.1"]', "names no convolution or linear layer of tiny"),
    ],
)
def test_it_is_refused_before_anything_is_built(refused, tmp_path, command, config, message):
    assert message in refused(command, "--suite", suite_file(tmp_path, config), "--results", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_an_excluded_layer_can_be_another_network_s_or_out_of_scope_already(tmp_path):
    for patterns in ('"classifier.*", "classifier"', '"fc"', '"features.3"', '"*"'):
        config = f"sparsity = 0.5\nscope = {{ exclude = [{patterns}], depthwise = false }}"
        refuse_impossible(lay_out(load_suite(str(suite_file(tmp_path, config))), None))


@pytest.mark.parametrize("names", ['scope.exclude = ["haed"]', "layers = { haed = 0 }"])
def test_names_of_a_network_of_the_user_s_are_checked_too(own_files, names):
    def check(function: str, text: str) -> None:
        (own_files / "one.toml").write_text(
            f'description = "d"\nmodels = ["net.py:{function}"]\nweights = "none"\ndata.default = "digits"\n'
            f'training.epochs = 1\n[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\n{text}\n'
        )
        refuse_impossible(lay_out(load_suite(str(own_files / "one.toml")), None))

    check("net", names.replace("haed", "head"))
    with pytest.raises(BenchError, match=r"'haed' .*of net-net.*did you mean 'head'\?"):
        check("net", names)
    check("broken", names)  # its cells will fail, with the line of the file that does it


def test_a_key_of_layers_can_be_for_another_network_and_must_be_the_first_for_some_layer(tmp_path):
    def cells(layers: str) -> list[Cell]:
        return lay_out(load_suite(str(suite_file(tmp_path, f"sparsity = 0.5\nlayers = {{ {layers} }}"))), None)

    refuse_impossible(cells('"layer4.*" = 0.75'))
    with pytest.raises(BenchError, match=r"layers: 'features\.0' decides over no layer"):
        refuse_impossible(cells('Conv2d = 0.25, "features.0" = 0.1'))
