"""Layers whose names become one Core ML name: each has a stored weight of its own, found again by its content."""

import math

import coremltools as ct
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from coreml_prune_bench.aimodel.programs import read_program
from coreml_prune_bench.bench.build.own_network import not_prunable
from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.bench.verify import check_package
from coreml_prune_bench.core.errors import CellFailedError
from coreml_prune_bench.mlprogram.summary import kept_in, read_package
from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.conversion import encode_zeros, to_coreml, weight_parameters
from coreml_prune_bench.models.layers import prunable_layers
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pruning.algorithm import prune
from coreml_prune_bench.models.pruning.coreml import to_sparse_coreml
from coreml_prune_bench.models.pruning.coremltools_yaml import coremltools_yaml
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.tracing import observe
from coreml_prune_bench.models.training import normalize
from coreml_prune_bench.models.weight_names import called_alike, marked
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.runtimes import portable
from tests.latency.noise import Noise
from tests.models.modes import PALETTIZED, QUANTIZED, SPARSE, gpt, magnitude, post
from tests.models.tiny import SIZE
from tests.packages import from_torch

CHANNELS = 8
"""Of every layer's input and output: weights of one shape are told apart by name or content alone."""

MAKERS = {
    "conv": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
    "linear": lambda: nn.Linear(CHANNELS, CHANNELS),
    "transposed": lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, padding=1),  # not pruned
}


class Named(nn.Module):
    """Layers in a row under these dotted names; 8 numbers of an image. bare: a parameter of the network itself."""

    def __init__(self, layers: dict[str, str], bare: str | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.order = tuple(layers)
        for name, kind in layers.items():
            parent: nn.Module = self
            *folders, last = name.split(".")
            for folder in folders:
                if folder not in parent._modules:
                    parent.add_module(folder, nn.Module())
                parent = parent.get_submodule(folder)
            parent.add_module(last, MAKERS[kind]())
        self.bare = bare
        if bare:
            self.register_parameter(bare, nn.Parameter(torch.rand(CHANNELS, CHANNELS)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.cat([images] * 3, 1)[:, :CHANNELS]
        for name in self.order:
            layer = self.get_submodule(name)
            if isinstance(layer, nn.Linear):
                x = layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(-1, CHANNELS, SIZE, SIZE)
            else:
                x = layer(x)
        x = x.mean((2, 3))
        return nn.functional.linear(x, self.get_parameter(self.bare)) if self.bare else x


def of(layers: dict[str, str]) -> Network:
    return Network(name="named", title="Named", build=lambda _: Named(layers), head=None, scope=Scope())


def packages(model: nn.Module, layers: dict[str, str], config, folder):
    """Dense and pruned, saved, checked as a cell's are, and what was pruned."""
    to_coreml(model, SIZE).save(str(folder / "dense.mlpackage"))
    dense = read_package(folder / "dense.mlpackage")
    assert not_prunable(model, observe(model, SIZE).calls, dense) == ()
    task = PruningTask(of(layers), model, SIZE, Noise(), 0, progress=lambda done, total: None)
    pruned = prune(config, task)
    path = folder / "pruned.mlpackage"
    to_sparse_coreml(pruned).save(str(path))
    package = read_package(path)
    check_package(
        path, package, pruned.targets, dense, storage=pruned.config.storage, bits=pruned.config.joint_bits or 16
    )
    return dense, path, package, pruned


def assert_each_layer_has_its_own(path, package, pruned, layers):
    """By content: the zeros of the stored weight stand where the torch layer's do, and nowhere else."""
    names = {layer: package.weight_of_layer(layer).name for layer in layers}
    assert len(set(names.values())) == len(layers)
    kept = kept_in(read_program(path), list(names.values()))
    for layer, name in names.items():
        weight = pruned.model.get_submodule(layer).get_parameter("weight").detach().half().numpy()
        assert np.array_equal(kept[name], weight != 0), layer


part = st.sampled_from(["a", "b", "1", "a_b", "a_1", "1_a", "_a", "op", "var", "weight", "a_weight", "a-1"])
named = st.lists(part, min_size=1, max_size=3).map(".".join)
networks = st.dictionaries(named, st.sampled_from(sorted(MAKERS)), min_size=2, max_size=6).filter(
    lambda layers: (
        set(layers.values()) != {"transposed"}
        and not any(other.startswith(f"{name}.") for name in layers for other in layers)
    )
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(networks)
@example({"a.1": "conv", "a_1": "conv", "fc": "linear"})
@example({"a_1": "conv", "a.1": "conv"})
@example({"res.skip_conv": "conv", "res_skip.conv": "conv", "res.skip.conv": "linear"})
@example({"1": "conv", "op.1": "conv", "var_1": "conv", "op_1": "linear"})
@example({"a.b": "conv", "a_b": "transposed"})
@example({"a-1": "conv", "a_1": "conv", "a.1": "linear", "a.weight": "conv"})
def test_every_layer_in_scope_is_stored_sparse_at_its_target(tmp_path_factory, layers):
    model = Named(layers).eval()
    config = PostTrainingConfig(sparsity=0.5)
    dense, path, package, pruned = packages(model, layers, config, tmp_path_factory.mktemp("named"))
    in_scope = {name for name, kind in layers.items() if kind != "transposed"}
    assert set(pruned.targets) == in_scope
    assert_each_layer_has_its_own(path, package, pruned, in_scope)
    saved = 0
    for layer in in_scope:
        weight = package.weight_of_layer(layer)
        elements = pruned.model.get_submodule(layer).get_parameter("weight").numel()
        assert (weight.storage, weight.elements, weight.sparsity) == ("sparse", elements, 0.5)
        mask = math.ceil(elements / 8)  # the 8 bytes of a linear layer's stand in the program itself
        assert weight.size_bytes == (mask if mask >= 10 else 0) + elements  # and half of the Float16 values
        saved += 2 * elements - weight.size_bytes
    sizes = [sum(weight.size_bytes for weight in summary.weights) for summary in (dense, package)]
    assert sizes[0] - sizes[1] == saved


ALIKE = {"a.1": "conv", "a_1": "conv", "a.2": "conv", "b": "linear"}


@pytest.mark.parametrize(
    ("config", "storage"),
    [
        (post(sparsity=0.5, layers={"a.1": 0.25, "a_1": 0.75}), SPARSE),
        (post(sparsity=0.5, quantize_bits=4), QUANTIZED),
        (post(sparsity=0.5, palettize_bits=4), PALETTIZED),
        (gpt(sparsity=0.5, layers={"a_1": 0.75}), SPARSE),
        (gpt(sparsity=0.5, weight_dtype="uint8"), QUANTIZED),
        (magnitude(sparsity=0.5, layers={"a.1": 0.25}), SPARSE),
    ],
    ids=["post", "quantized", "palettized", "gpt", "gpt-quantized", "magnitude"],
)
def test_algorithms_and_forms_of_storage(tmp_path, config, storage):
    _, path, package, pruned = packages(Named(ALIKE).eval(), ALIKE, config, tmp_path)
    assert_each_layer_has_its_own(path, package, pruned, ALIKE)
    for layer in ALIKE:
        weight = package.weight_of_layer(layer)
        assert weight.storage == storage
        one_weight = 1 / CHANNELS**2  # of a linear layer
        assert weight.sparsity == pytest.approx(config.sparsity_of(layer, ""), abs=one_weight)


def test_the_package_predicts_what_the_network_does(tmp_path):
    """Two weights of one shape that were exchanged would pass every check of sizes."""
    model = Named(ALIKE).eval()
    to_coreml(model, SIZE).save(str(tmp_path / "x.mlpackage"))
    images = Noise().images(np.arange(8), None)
    with torch.no_grad():
        expected = model(normalize(images)).numpy()
    found = portable.load(tmp_path / "x.mlpackage").predict_batch({"image": images})["logits"]
    assert np.abs(found - expected).max() < 0.02 * expected.std()


def test_a_users_network_is_pruned_as_its_table_says(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.res = nn.Module()\n"
        "        self.res_skip = nn.Module()\n"
        "        self.res.skip_conv = nn.Conv2d(3, 64, 3, 2)\n"
        "        self.res_skip.conv = nn.Conv2d(64, 64, 3, 2)\n"
        "        self.head = nn.Linear(64, 10)\n\n"
        "    def forward(self, images):\n"
        "        return self.head(self.res_skip.conv(self.res.skip_conv(images).relu()).relu().mean((2, 3)))\n\n\n"
        "def net():\n"
        "    return Net()\n"
    )
    (tmp_path / "suite.toml").write_text(
        'description = "d"\nmodels = ["net.py:net"]\ntrials = 1\ndata.default = "digits"\n'
        '[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\n'
    )
    outcome = run(lay_out(load_suite(str(tmp_path / "suite.toml")), None), RunOptions(Store(tmp_path / "results")))
    assert not outcome.failed
    dense, pruned = outcome.records
    assert pruned.pruning.scope == "conv + linear"
    assert [(layer.name, layer.storage, round(layer.sparsity, 3)) for layer in pruned.package.layers] == [
        ("res.skip_conv", "sparse", 0.5),
        ("res_skip.conv", "sparse", 0.5),
        ("head", "sparse", 0.5),
    ]
    # 16 bits a weight become 8 and one of the mask; biases and the blobs' headers stay.
    assert 1.7 < dense.package.weight_bytes / pruned.package.weight_bytes < 16 / 9


@pytest.mark.parametrize(
    ("layers", "others", "alike"),
    [
        ({"a.1", "a_1", "a.2"}, set(), {"a.1", "a_1"}),
        ({"a.b.c", "a_b.c", "a.b_c", "a.bc"}, set(), {"a.b.c", "a_b.c", "a.b_c"}),
        ({"1", "op.1", "11"}, set(), {"1", "op.1"}),
        ({"1", "var_1"}, set(), {"1", "var_1"}),
        ({"é", "_"}, set(), {"é", "_"}),
        ({"a", "b"}, {"a_weight", "b.bias"}, {"a"}),
        ({"a.b"}, {"a_b.weight", "a.b.weight"}, {"a.b"}),
        ({"a", "A", "a_", "_a", "x", "var_x"}, {"a.weight_v"}, set()),
    ],
)
def test_names_that_do_not_tell(layers, others, alike):
    assert called_alike(layers, others) == alike


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "mobilenet_v3_small"])
def test_networks_whose_names_tell_keep_them(name):
    assert set(weight_parameters(untrained_model(get_network(name), 10)).values()) == {"weight"}


def test_a_parameter_of_the_network_itself_is_not_taken_for_a_layers_weight(tmp_path):
    layers = {"a": "conv", "b": "linear"}
    model = Named(layers, bare="b_weight").eval()
    assert weight_parameters(model) == {"a": "weight", "b": marked("b")}
    _, path, package, pruned = packages(model, layers, PostTrainingConfig(sparsity=0.5), tmp_path)
    assert_each_layer_has_its_own(path, package, pruned, layers)
    assert [weight.storage for weight in package.weights if weight.name == "b_weight_to_fp16"] == ["dense"]


def test_a_layer_named_in_other_letters_is_found(tmp_path):
    layers = {"größe": "conv", "b": "linear"}
    _, path, package, pruned = packages(Named(layers).eval(), layers, PostTrainingConfig(sparsity=0.5), tmp_path)
    assert_each_layer_has_its_own(path, package, pruned, layers)


def test_converting_leaves_the_network_as_it_is():
    model = Named(ALIKE).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    classes = [type(module) for module in model.modules()]
    to_coreml(model, SIZE)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert classes == [type(module) for module in model.modules()]


def test_a_weight_that_stands_for_two_layers_does_not_pass(tmp_path):
    """As Core ML Tools names them: a_1_weight_to_fp16 and a_1_weight_to_fp16_0."""
    model = Named(ALIKE).eval()
    with torch.no_grad():
        for layer in prunable_layers(model).values():
            layer.weight.view(-1)[: layer.weight.numel() // 2] = 0
    dense = from_torch(tmp_path / "dense.mlpackage", model, (1, 3, SIZE, SIZE), compute_precision=ct.precision.FLOAT16)
    half = encode_zeros(ct.models.MLModel(str(dense), skip_model_load=True), list(ALIKE))
    half.save(str(tmp_path / "half.mlpackage"))
    package = read_package(tmp_path / "half.mlpackage")
    with pytest.raises(CellFailedError, match=r"layers a\.1 and a_1 are one weight in the package, a_1_weight_to_fp16"):
        check_package(tmp_path / "half.mlpackage", package, dict.fromkeys(ALIKE, 0.5), read_package(dense))


def test_a_config_of_core_ml_tools_has_to_say_which_of_them_it_means(tmp_path):
    def own(name: str) -> PostTrainingConfig:
        asked = {"target_sparsity": 0.5, "weight_threshold": 0}
        by_name = {"config_type": "OpMagnitudePrunerConfig", "op_name_configs": {name: asked}}
        return PostTrainingConfig(coremltools=by_name)

    name = f"a_1_{marked('a.1')}_to_fp16"
    with pytest.raises(CellFailedError, match=rf"not only a\.1 would be a_1_weight_to_fp16; its weight is {name}"):
        packages(Named(ALIKE).eval(), ALIKE, own("a_1_weight_to_fp16"), tmp_path)
    _, _, package, pruned = packages(Named(ALIKE).eval(), ALIKE, own(name), tmp_path)
    assert pruned.targets == {"a.1": 0.5}
    assert [package.weight_of_layer(layer).storage for layer in ALIKE] == ["sparse", "dense", "dense", "dense"]


def test_files_for_core_ml_tools_say_which_layers_they_lack():
    targets = dict.fromkeys(ALIKE, 0.5)
    files = coremltools_yaml(PostTrainingConfig(sparsity=0.5, palettize_bits=4), targets, 0)
    for text in files.values():
        assert "a.1, a_1 are left out: their weights would have one name" in text.splitlines()[0]
        assert "a_1_weight" not in text
        assert "a_2_weight" in text
    (text,) = coremltools_yaml(gpt(sparsity=0.5), targets, 64).values()
    assert "left out" not in text
    assert r"a_1:" in text
