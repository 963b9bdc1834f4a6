"""The head of a network: how many classes it tells apart, and the layers that make its output."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.errors import CellFailedError
from coreml_prune_bench.models.heads import head_of, with_classes
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.weights import head_classes, initial_model, load_pretrained, untrained_model

SIZE = 8
WIDTH = 6


class Net(nn.Module):
    """`self.fc` is its head, and `self.last` the last linear layer that is registered."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, classes)
        self.other = nn.Linear(WIDTH, classes)
        self.conv = nn.Conv2d(3, WIDTH, 3)
        self.classify = nn.Conv2d(WIDTH, classes, 1)
        self.gate = nn.Linear(WIDTH, 2)
        self.part = nn.Linear(WIDTH, classes // 2)
        self.refine = nn.Linear(classes, classes)
        self.classnorm = nn.BatchNorm1d(classes)
        self.prototypes = nn.Parameter(torch.randn(classes, WIDTH))
        self.temperature = nn.Parameter(torch.ones(1))
        self.places = nn.Parameter(torch.randn(WIDTH))
        self.register_buffer("prior", torch.randn(1))
        self.last = nn.Linear(WIDTH, WIDTH)

    def maps(self, images):
        return self.conv(images).relu()

    def features(self, images):
        return self.last(self.maps(images).mean((2, 3)))

    def forward(self, images):
        return self.fc(self.features(images))


class Squeezed(Net):
    def forward(self, images):
        x = self.maps(images)
        return self.fc((x * self.last(x.mean((2, 3))).sigmoid()[:, :, None, None]).mean((2, 3)))


class Averaged(Net):
    def forward(self, images):
        x = self.features(images)
        return (self.fc(x) + self.other(x)) / 2


class Auxiliary(Net):
    def forward(self, images):
        x = self.features(images)
        self.other(x)
        return self.fc(x)


class OneByOne(Net):
    def forward(self, images):
        maps = self.classify(functional.dropout(self.maps(images), 0.5, self.training))
        return functional.adaptive_avg_pool2d(maps.relu(), 1).flatten(1)


class Behind(Net):
    def forward(self, images):
        return functional.dropout(self.fc(self.features(images)), 0.5, self.training).flatten(1).softmax(1)


class Scaled(Net):
    def forward(self, images):
        return self.fc(self.features(images)) * self.temperature.exp() - self.prior


class Experts(Net):
    def forward(self, images):
        x = self.features(images)
        share = self.gate(x).softmax(1)
        return share[:, :1] * self.fc(x) + share[:, 1:] * self.other(x)


class Functional(Net):
    def forward(self, images):
        return 16 * functional.normalize(self.features(images)) @ functional.normalize(self.fc.weight).t()


class Written(Net):
    def forward(self, images):
        x = self.features(images)
        out = x.new_zeros(len(x), self.fc.out_features)
        out[:] = self.fc(x)
        return out


class Detached(Net):
    def forward(self, images):
        with torch.no_grad():
            x = self.features(images)
        return self.fc(x.detach())


class Looped(Net):
    def forward(self, images):
        return torch.stack([self.fc(x) for x in self.features(images)]).reshape(len(images), -1)


class Weighted(Net):
    """The convolution's maps are weighted by place before they are averaged."""

    def forward(self, images):
        return (self.classify(self.maps(images)) * self.places.softmax(0)).mean((2, 3))


class Sequence(nn.Sequential):
    def __init__(self, classes: int = 10) -> None:
        head = nn.Sequential(nn.Dropout(0.5), nn.Linear(WIDTH, 7), nn.ReLU(), nn.Linear(7, classes), nn.Softmax(1))
        super().__init__(nn.Conv2d(3, WIDTH, SIZE), nn.Flatten(), head)


@torch.jit.script
def doubled(x):
    return x + x.relu()


class Scripted(Net):
    def forward(self, images):
        return doubled(self.fc(doubled(self.features(images))))


RIGHT = {
    Net: ["fc"],
    Squeezed: ["fc"],
    Averaged: ["fc", "other"],
    Auxiliary: ["fc"],
    OneByOne: ["classify"],
    Behind: ["fc"],
    Scaled: ["fc"],
    Experts: ["fc", "other"],
    Functional: ["fc"],
    Written: ["fc"],
    Detached: ["fc"],
    Looped: ["fc"],
    Weighted: ["classify"],
    Sequence: ["2.3"],
    Scripted: ["fc"],
}


@pytest.mark.parametrize("kind", RIGHT)
def test_the_head_is_what_makes_the_output_and_gets_other_classes(kind):
    model = kind().train()
    head = head_of(model, SIZE, "net")
    assert (head.classes, list(head.layers), head.others) == (10, RIGHT[kind], ())
    assert model.training
    before = {name: layer for name, layer in model.named_modules() if name not in RIGHT[kind]}
    with_classes(model, 4, SIZE, "net")
    assert model.eval()(torch.rand(2, 3, SIZE, SIZE)).shape == (2, 4)
    assert all(model.get_submodule(name) is layer for name, layer in before.items())
    for name in RIGHT[kind]:
        assert model.get_submodule(name).weight.shape[0] == 4


def test_a_convolution_as_head_keeps_how_it_slides():
    model = nn.Sequential(nn.Conv2d(3, 10, (2, 4), stride=2, padding=(1, 0), padding_mode="reflect"), Pooled())
    new = with_classes(model, 4, SIZE, "net")[0]
    assert (new.kernel_size, new.stride, new.padding, new.padding_mode) == ((2, 4), (2, 2), (1, 0), "reflect")


class Pooled(nn.Module):
    def forward(self, maps):
        return maps.mean((2, 3))


class Prototypes(Net):
    def forward(self, images):
        return self.features(images) @ self.prototypes.t()


class Normed(Net):
    def forward(self, images):
        return self.classnorm(self.fc(self.features(images)))


class Halves(Net):
    def forward(self, images):
        x = self.features(images)
        return torch.cat([self.part(x), 2 * self.part(x)], 1)


class Refined(Net):
    def forward(self, images):
        x = self.fc(self.features(images))
        return x + self.refine(x)


class Tied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, WIDTH)
        self.fc.weight = self.words.weight

    def forward(self, images):
        return self.fc(self.features(images) + self.words.weight.mean(0))


class Grouped(Net):
    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Conv2d(WIDTH, 10, 1, groups=2)

    def forward(self, images):
        return self.classify(self.maps(images)).mean((2, 3))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Prototypes, "its output is made with prototypes, of no linear layer or convolution"),
        (Normed, "its output is made with classnorm.bias, classnorm.weight, of no linear layer"),
        (Halves, r"no layer at its output gives 10 numbers \(part gives 5\)"),
        (Refined, "with new fc and refine, net fails on an image"),
        (Tied, "fc shares its weight with words.weight"),
        (Grouped, "classify is a convolution with groups"),
    ],
)
def test_a_head_that_cannot_be_replaced_is_one_line_with_the_cure(kind, message):
    assert head_of(kind(), SIZE, "net").classes == 10
    assert with_classes(kind(), 10, SIZE, "net")  # it need not be
    with pytest.raises(CellFailedError, match=message) as raised:
        with_classes(kind(), 4, SIZE, "net")
    assert "net tells 10 classes apart and the data has 4" in str(raised.value)
    assert str(raised.value).endswith("let the function that makes it take num_classes")
    assert "\n" not in str(raised.value)


class Returning(Net):
    def __init__(self, what) -> None:
        super().__init__()
        self.what = what

    def forward(self, images):
        return self.what(super().forward(images))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda y: (y, y), "got tuple; return its logits alone, a tensor"),
        (lambda y: {"logits": y}, "got dict; return its logits alone"),
        (lambda y: None, "got NoneType"),
        (lambda y: y.numpy(), "got ndarray"),
        (lambda y: y[:, :, None], r"got \[1, 10, 1\]"),
        (lambda y: y[0], r"got \[10\]"),
        (lambda y: y.argmax(1, keepdim=True), r"got \[1, 1\] of torch.int64; return its logits"),
        (lambda y: torch.from_numpy(y.numpy() * 2), "torch does not see its output computed from the image"),
        (lambda y: torch.tensor(y.tolist()), "torch does not see its output computed from the image"),
        (lambda y: y @ y, r"fails on an image \[1, 3, 8, 8\]: RuntimeError: mat1 and mat2"),
        (lambda y: y @ torch.ones(10, 10).half(), "networks are measured in float32"),
    ],
)
def test_what_is_no_number_for_each_class_is_one_line(what, message):
    with pytest.raises(CellFailedError, match=message) as raised:
        head_of(Returning(what), SIZE, "net")
    assert "\n" not in str(raised.value)


def test_finding_the_head_leaves_no_trace():
    """No random number is drawn, no statistic changed, no hook left."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), Pooled(), nn.Linear(4, 10)).train()
    model[1].eval()
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    head_of(model, SIZE, "net")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert not any(module._forward_hooks for module in model.modules())


# --- weights of a network whose head is not named


@pytest.mark.parametrize(("kind", "classes"), [(Squeezed, 10), (Averaged, 10), (OneByOne, 7), (Sequence, 1000)])
def test_weights_say_for_how_many_classes_they_are(kind, classes):
    """Also where the network can be made for any number; a state dict of one with a new head is for that."""
    network = Network("net", "Net", kind, None, Scope())
    state = kind(classes).state_dict()
    assert head_classes(network, state, SIZE) == classes
    model = initial_model(network, state, 4, image_size=SIZE)
    assert model(torch.rand(1, 3, SIZE, SIZE)).shape == (1, 4)
    again = initial_model(network, model.state_dict(), 4, image_size=SIZE)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_network_of_one_number_of_classes_is_loaded_with_the_head_that_it_was_given():
    network = Network("net", "Net", lambda classes: Squeezed(20), None, Scope())
    model = untrained_model(network, 4, image_size=SIZE).eval()
    images = torch.rand(2, 3, SIZE, SIZE)
    again = initial_model(network, model.state_dict(), 4, image_size=SIZE)
    assert torch.equal(again(images), model(images))


def test_weights_of_weight_norm_are_read_as_what_is_computed(tmp_path):
    def normed(classes: int) -> nn.Module:
        model = Net(classes)
        for layer in (model.fc, model.conv):
            nn.utils.parametrizations.weight_norm(layer)
        return model

    network = Network("net", "Net", normed, None, Scope())
    saved = normed(7).eval()
    torch.save(saved.state_dict(), tmp_path / "net.pth")
    state = load_pretrained(network, tmp_path)
    assert state["fc.weight"].shape == (7, WIDTH)
    assert head_classes(network, state, SIZE) == 7
    images = torch.rand(2, 3, SIZE, SIZE)
    assert torch.allclose(initial_model(network, state, 7, image_size=SIZE)(images), saved(images), atol=1e-6)
