"""Networks: the sequential view, the scope, the weights, and how little a fourth one costs."""

from pathlib import Path

import pytest
import torch
import torchvision

import coreml_prune_bench.models.networks  # noqa: F401
from coreml_prune_bench.core.errors import BenchError, WeightsError
from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.layers import layers_in_scope, prunable_layers, stage_names
from coreml_prune_bench.models.registry import get_network, register
from coreml_prune_bench.models.weights import initial_model, load_pretrained, untrained_model
from tests.tiny_network import TINY

NAMES = ["mobilenet_v2", "mobilenet_v3_small", "resnet50", "tiny"]


@pytest.mark.parametrize("name", NAMES)
def test_the_stages_one_after_the_other_are_the_network_and_share_its_layers(name):
    network = get_network(name)
    model = untrained_model(network, 10).eval()
    view = network.sequential(model)
    images = activations = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for stage in stage_names(view):
            activations = view.get_submodule(stage)(activations)
        assert torch.equal(activations, model(images))
    named = {name.split(".", 1)[1]: layer for name, layer in prunable_layers(view).items()}
    assert named == prunable_layers(model)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "resnet50"])
def test_the_topology_is_torchvisions(name):
    reference = getattr(torchvision.models, name)().state_dict()
    ours = get_network(name).build(1000).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {k: v.shape for k, v in reference.items()}
    weights = torchvision.models.get_weight(get_network(name).pretrained)
    assert weights.url.rsplit("/", 1)[1].removesuffix(".pth") in {
        "mobilenet_v2-b0353104",
        "mobilenet_v3_small-047dcff4",
        "resnet50-0676ba61",
    }


def test_the_default_scopes():
    layers = {name: layers_in_scope(get_network(name).build(1000), get_network(name).scope) for name in NAMES}
    # MobileNetV2: 52 convolutions and a linear layer, of which 17 depthwise and the classifier stay dense.
    assert len(layers["mobilenet_v2"]) == 35
    # ResNet50: 53 convolutions and a linear layer, all but the first.
    assert len(layers["resnet50"]) == 53
    assert min(layer.weight.numel() for layer in layers["mobilenet_v3_small"].values()) > 4096


def test_a_scope_chooses_and_says_what_it_chooses():
    model = get_network("mobilenet_v2").build(1000)
    scope = Scope(depthwise=False, exclude=("classifier.*", "features.0.0"), min_elements=1000)
    chosen = layers_in_scope(model, scope)
    assert "classifier.1" not in chosen
    assert "features.0.0" not in chosen
    assert "features.2.conv.2" in chosen
    assert all(layer.weight.numel() > 1000 for layer in chosen.values())
    assert scope.describe() == "conv + linear over 1,000 weights except depthwise, classifier.*, features.0.0"
    assert Scope().describe() == "conv + linear"


def test_a_network_is_registered_once_and_an_unknown_one_gets_the_nearest_name():
    assert get_network("tiny") is TINY
    with pytest.raises(ValueError, match="registered already"):
        register(TINY)
    with pytest.raises(BenchError, match="did you mean 'resnet50'"):
        get_network("resnet5")


def save(folder: Path, state: object, name: str = "tiny") -> Path:
    torch.save(state, folder / f"{name}.pth")
    return folder


def test_weights_from_a_folder_are_the_files_in_float32(tmp_path):
    state = untrained_model(TINY, 10, seed=1).state_dict()
    half = {key: value.half() if value.ndim > 1 else value for key, value in state.items()}
    loaded = load_pretrained(TINY, save(tmp_path, half))
    assert all(value.dtype != torch.float16 for value in loaded.values())
    assert torch.equal(loaded["classifier.weight"], half["classifier.weight"].float())


def test_a_head_is_kept_where_the_classes_are_its_own_and_new_and_seeded_elsewhere(tmp_path):
    state = load_pretrained(TINY, save(tmp_path, untrained_model(TINY, 10).state_dict()))
    assert torch.equal(initial_model(TINY, state, 10).classifier.weight, state["classifier.weight"])
    new = initial_model(TINY, state, 7)
    assert new.classifier.weight.shape == (7, 128)
    assert torch.equal(new.classifier.weight, initial_model(TINY, state, 7).classifier.weight)
    assert torch.equal(new.features[0].weight, state["features.0.weight"])


def test_weights_of_another_architecture_are_named(tmp_path):
    save(tmp_path, get_network("resnet50").build(1000).state_dict())
    with pytest.raises(WeightsError, match=r"tiny are of another architecture: they lack 'features.0.weight' and"):
        load_pretrained(TINY, tmp_path)
    state = untrained_model(TINY, 10).state_dict()
    state["features.0.weight"] = torch.zeros(16, 3, 5, 5)
    with pytest.raises(WeightsError, match=r"another shape for 'features.0.weight'$"):
        load_pretrained(TINY, save(tmp_path, state))


@pytest.mark.parametrize("kind", ["complex64", "int8", "bool"])
def test_weights_that_are_no_real_numbers_are_named_and_not_cast(tmp_path, kind):
    """Copied, complex ones lose their imaginary part, and integers of a quantized network their scale."""
    state = untrained_model(TINY, 10).state_dict()
    state["features.0.weight"] = state["features.0.weight"].to(getattr(torch, kind))
    with pytest.raises(WeightsError, match=rf"hold 'features.0.weight' as torch.{kind}; expected floats"):
        load_pretrained(TINY, save(tmp_path, state))
    state = untrained_model(TINY, 10).state_dict()
    state["features.1.running_mean"] = state["features.1.running_mean"].to(getattr(torch, kind))
    with pytest.raises(WeightsError, match=rf"'features.1.running_mean' is {kind}, where the network has float32"):
        load_pretrained(TINY, save(tmp_path, state))


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 half an archive"])
def test_a_damaged_weight_file_is_named(tmp_path, content):
    (tmp_path / "tiny.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"tiny.pth is not a file of weights"):
        load_pretrained(TINY, tmp_path)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    save(tmp_path, {"features.0.weight": print})
    with pytest.raises(WeightsError, match=r"holds builtins\.print, which is read by running code"):
        load_pretrained(TINY, tmp_path)


def test_a_missing_weight_file_or_download_says_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights for tiny: .*tiny.pth does not exist"):
        load_pretrained(TINY, tmp_path)
    with pytest.raises(WeightsError, match="has no pre-trained weights to download; give a folder with --weights"):
        load_pretrained(TINY, None)
