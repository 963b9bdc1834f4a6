"""Networks in wrappers, with weights that are computed, and in states in which nothing can be done with them."""

import copy
import re
from pathlib import Path
from types import MethodType

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as masks
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from coreml_prune_bench.core.errors import BenchError, CellFailedError
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.layers import matching, prunable_layers
from coreml_prune_bench.models.plain import outside_inference, unwrapped, with_plain_weights
from coreml_prune_bench.models.pruning.blockwise_reconstruction.prune import _masks_in
from coreml_prune_bench.models.pruning.magnitude_pruner.prune import _sharing_what_is_masked
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.stages import sequential_view
from coreml_prune_bench.models.training import normalize
from coreml_prune_bench.runtimes import portable

SIZE = 8


def net() -> nn.Sequential:
    """In training mode, as networks are made."""
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4))


class Tripled(nn.Module):
    def forward(self, weight):
        return 3 * weight


WAYS = {
    "the older weight_norm": nn.utils.weight_norm,
    "the older spectral_norm": nn.utils.spectral_norm,
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "the user's own": lambda layer: parametrize.register_parametrization(layer, "weight", Tripled()),
    "a mask": lambda layer: masks.l1_unstructured(layer, "weight", 0.3),
    "two masks": lambda layer: masks.random_unstructured(masks.l1_unstructured(layer, "weight", 0.3), "weight", 0.3),
    "two at once": lambda layer: parametrize.register_parametrization(
        parametrizations.spectral_norm(layer), "weight", Tripled()
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("used", [False, True])
def test_a_weight_that_is_computed_becomes_what_is_computed(way, used):
    model = net()
    for number in (0, 4):
        WAYS[way](model[number])
    if used:
        model(torch.rand(4, 3, SIZE, SIZE)).sum().backward()
    images = torch.rand(2, 3, SIZE, SIZE)
    before = {name: value.clone() for name, value in model.state_dict().items() if "original0" not in name}
    assert with_plain_weights(model) is model
    model.load_state_dict({key: value.clone() for key, value in model.state_dict().items()})
    assert model.state_dict().keys() == net().state_dict().keys()
    weights = [model[number].weight for number in (0, 4)]
    assert all(isinstance(weight, nn.Parameter) and weight.requires_grad for weight in weights)
    outputs = model.eval()(images)
    again = net()
    for number in (0, 4):
        WAYS[way](again[number])
    if "mask" not in way:
        again.load_state_dict(before, strict=False)
        copied = copy.deepcopy(model)  # which a weight that a graph computed could not be
        assert torch.equal(copied(images), outputs)
    with torch.no_grad():
        weights[1].zero_()
    assert torch.equal(model(images), model[4].bias.expand(2, -1))


@pytest.mark.parametrize("way", ["weight_norm", "the older spectral_norm", "a mask"])
def test_it_computes_what_it_did(way):
    model = net()
    WAYS[way](model[4])
    model(torch.rand(4, 3, SIZE, SIZE))
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = model.eval()(images)
        assert torch.allclose(with_plain_weights(model)(images), expected, atol=1e-6)


def test_weights_lie_in_memory_in_their_order_whatever_the_network_was_made_for():
    """A network for channels last; a weight that is a view of another tensor, or one row for all."""
    model = net().to(memory_format=torch.channels_last)
    model[4].weight = nn.Parameter(torch.rand(4, 1).expand(4, 6 * 36))
    with_plain_weights(model)
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    model.load_state_dict(net().state_dict())


def test_wrappers_are_taken_off_wherever_they_are():
    inner = net()
    whole = nn.Sequential(nn.DataParallel(torch.compile(inner[:2])), torch.compile(inner[2:]))
    model = unwrapped(torch.compile(nn.DataParallel(AveragedModel(whole))))
    assert [type(child) for child in model] == [nn.Sequential, nn.Sequential]
    assert next(name for name, _ in model.named_parameters()) == "0.0.weight"


def test_tensors_of_inference_mode_can_be_written_to_and_what_is_shared_stays_so():
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        model[2].weight = model[0].weight
    before = model[0].weight.clone()
    outside_inference(model)
    assert torch.equal(model[0].weight, before)
    assert model[2].weight is model[0].weight
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()


FILE = """
import torch
from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4))


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4))


def on_meta():
    with torch.device("meta"):
        return net()


def partly_on_meta():
    return nn.Sequential(net(), nn.Linear(4, 4, device="meta"))


def quantized():
    return torch.ao.quantization.quantize_dynamic(net(), {nn.Linear})


def traced():
    return torch.jit.trace(net(), torch.rand(1, 3, 8, 8))


def traced_inside():
    return nn.Sequential(traced(), nn.Linear(4, 4))


def scripted():
    return torch.jit.script(net())


def doubles():
    return net().double()


def compiled():
    return torch.compile(net())


@torch.compile
def doubled(x):
    return 2 * x


@torch.compile(dynamic=True)
def same(x):
    return x


@torch.jit.script
def halved(x):
    return x / 2


class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    @torch.compile
    def forward(self, x):
        return halved(same(doubled(self.net(x))))


def calls():
    model = Calls()
    model.compile()
    return model
"""


@pytest.fixture
def made(tmp_path: Path):
    (tmp_path / "nets.py").write_text(FILE)
    return lambda function: get_network(f"{tmp_path}/nets.py:{function}").build(4)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("lazy", "lazy: 1.weight has no shape yet, of a lazy layer; call the network once before returning it"),
        ("on_meta", "on_meta: 0.weight is on the device meta, without values; make the network on the CPU"),
        ("partly_on_meta", "1.weight is on the device meta"),
        ("quantized", "no tensor; return the network before it is quantized"),
        ("traced", "it is TorchScript, whose layers cannot be seen; return the network that torch.jit made it of"),
        ("traced_inside", "0 is TorchScript, whose layers cannot be seen"),
    ],
)
def test_a_network_with_which_nothing_can_be_done_is_one_line_with_the_cure(made, function, message):
    with pytest.raises(BenchError) as raised:
        made(function)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_network_of_another_type_or_in_a_wrapper_is_itself_in_float32(made):
    expected = made("net").state_dict()
    for function in ("doubles", "compiled", "scripted"):
        assert {k: v.dtype for k, v in made(function).state_dict().items()} == dict.fromkeys(expected, torch.float32)


def test_compiled_functions_are_converted_as_they_are_written(made, tmp_path):
    torchs = torch.compile, torch.jit.script
    model = made("calls").eval()
    same_as_torch(model, tmp_path)
    assert len(sequential_view(model, "net")) > 1
    assert (torch.compile, torch.jit.script) == torchs


def same_as_torch(model: nn.Module, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = model(normalize(pixels)).numpy()
    to_coreml(model, SIZE).save(str(tmp_path / "x.mlpackage"))
    found = portable.load(tmp_path / "x.mlpackage").predict_batch({"image": pixels})["logits"]
    assert np.abs(found - expected).max() < 3e-3 * np.abs(expected).max()


def hooked_before(model: nn.Module) -> None:
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0.5 + 1,))


def hooked_after(model: nn.Module) -> None:
    model[4].register_forward_hook(lambda module, inputs, output: 2 * output)


def hooked_backward(model: nn.Module) -> None:
    model[0].register_full_backward_hook(lambda module, inputs, outputs: None)
    model.register_full_backward_pre_hook(lambda module, outputs: None)


def another_forward(model: nn.Module) -> None:
    model.forward = MethodType(lambda self, x: type(self).forward(self, x) * 2, model)


def remembering(model: nn.Module) -> None:
    def remember(module, inputs, output):
        module.seen = output

    model[0].register_forward_hook(remember)
    model(torch.rand(2, 3, SIZE, SIZE))  # with a graph behind it, which cannot be copied


def test_what_a_network_hooks_to_its_calls_is_in_the_package(tmp_path):
    model = net()
    for change in (hooked_before, hooked_after, hooked_backward, another_forward, remembering):
        change(model)
    same_as_torch(model.eval(), tmp_path)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, images):
        return checkpoint(self.net, images, use_reentrant=False)


def calling_another(model: nn.Module) -> nn.Module:
    original = model.forward
    model.forward = lambda x: original(x)  # which a copy goes on to call
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Checkpointed(), "leave torch.utils.checkpoint and a torch.autograd.Function of your own out"),
        (
            calling_another(net()),
            "forward calls another network than its own copy; make what is in place of forward a method",
        ),
    ],
)
def test_what_cannot_be_converted_is_one_line_with_the_cure(model, message):
    with pytest.raises(CellFailedError, match=re.escape(message)) as raised:
        to_coreml(model.eval(), SIZE)
    assert "\n" not in str(raised.value)


def test_torchscript_without_weights_is_left_where_it_is(tmp_path):
    model = net()
    model[2] = torch.jit.script(nn.ReLU())
    same_as_torch(with_plain_weights(model).eval(), tmp_path)


# --- weights that layers share


class Sharing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(6, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 4)

    def forward(self, images):
        return self.fc(self.norm(self.second(self.first(images.repeat(1, 2, 1, 1)).relu())).mean((2, 3)))


def test_layers_that_share_a_weight_are_one_to_prune_under_all_names():
    model = Sharing()
    assert list(prunable_layers(model)) == ["first", "fc"]
    assert matching(model, ["second", "third"]) == {"second"}


def test_a_shared_weight_is_stored_once(tmp_path):
    """BatchNorm is not folded into one of its layers: each would get a weight of its own."""
    model = Sharing().eval()
    nn.init.uniform_(model.norm.running_var, 2, 3)
    same_as_torch(model, tmp_path)
    weights = [weight for weight in read_package(tmp_path / "x.mlpackage").weights if weight.shape == (6, 6, 3, 3)]
    assert [weight.name for weight in weights] == ["first_weight_to_fp16"]


def test_a_shared_weight_is_masked_under_the_name_that_comes_first_in_a_stage():
    model, mask = Sharing(), torch.ones(6, 6, 3, 3)
    stage = nn.ModuleDict({"second": model.second, "first": model.first, "fc": model.fc})
    assert _masks_in(stage, {"first": mask, "elsewhere": mask}).keys() == {"second.weight"}


def test_what_shares_a_weight_is_masked_along():
    model = Sharing()
    images = torch.rand(2, 3, SIZE, SIZE)
    with _sharing_what_is_masked(model):
        masks.l1_unstructured(model.first, "weight", 0.5)
        model(images).sum().backward()
        assert torch.equal(model.second.weight, model.first.weight)
        assert (model.second.weight == 0).float().mean() == pytest.approx(0.5, abs=0.01)
        masks.remove(model.first, "weight")
    assert model.second.weight is model.first.weight
    assert type(model.second) is nn.Conv2d
