"""Files of weights as training programs write them: what is unambiguous is loaded, what is not is named."""

import argparse
import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from coreml_prune_bench.models.errors import WeightsError
from coreml_prune_bench.models.weights import load_pretrained, untrained_model
from tests.tiny_network import TINY

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3\n"


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return untrained_model(TINY, 10, seed=1)


def loaded(folder: Path, content: Any, **options: Any) -> dict[str, Tensor]:
    torch.save(content, folder / "tiny.pth", **options)
    return load_pretrained(TINY, folder)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def inner_compiled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As of a network one part of which was given to torch.compile."""
    return {key.replace("features.", "features._orig_mod."): value for key, value in state.items()}


class Lightning(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


WRAPPED: dict[str, Callable[[nn.Module], Any]] = {
    "plain": lambda model: model.state_dict(),
    "data parallel": lambda model: nn.DataParallel(model).state_dict(),
    "compiled": lambda model: prefixed(model.state_dict(), "_orig_mod."),
    "compiled, then parallel": lambda model: prefixed(model.state_dict(), "module._orig_mod."),
    "parallel, then compiled": lambda model: prefixed(model.state_dict(), "_orig_mod.module."),
    "a part compiled": lambda model: inner_compiled(model.state_dict()),
    "state_dict": lambda model: {"state_dict": model.state_dict(), "epoch": 90, "best": 0.5},
    "model": lambda model: {"model": model.state_dict(), "optimizer": torch.optim.SGD(model.parameters()).state_dict()},
    "model_ema": lambda model: {"model_ema": AveragedModel(model).state_dict()},
    "averaged": lambda model: AveragedModel(model).state_dict(),
    "two that are equal": lambda model: {"model": model.state_dict(), "model_ema": AveragedModel(model).state_dict()},
    "deeper": lambda model: {"state": {"model": prefixed(model.state_dict(), "module.")}},
    "lightning": lambda model: {"state_dict": Lightning(model).state_dict(), "hyper_parameters": {"lr": 0.1}},
    "options": lambda model: {"model": model.state_dict(), "args": argparse.Namespace(lr=0.1, output="x")},
    "another's beside it": lambda model: {
        "student": model.state_dict(),
        "teacher": nn.Linear(3, 3).state_dict(),
    },
    "older counters": lambda model: OrderedDict(
        (f"module.{key}", value) for key, value in model.state_dict().items() if "num_batches" not in key
    ),
}


@pytest.mark.parametrize("way", WRAPPED)
def test_what_can_mean_one_thing_is_loaded(tmp_path: Path, model: nn.Module, way: str) -> None:
    found = loaded(tmp_path, WRAPPED[way](model))
    expected = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected if "num_batches" not in key)


def test_the_older_form_of_files_too(tmp_path: Path, model: nn.Module) -> None:
    state = {"state_dict": nn.DataParallel(model).state_dict()}
    found = loaded(tmp_path, state, _use_new_zipfile_serialization=False)
    assert torch.equal(found["classifier.weight"], model.state_dict()["classifier.weight"])


def refusal(folder: Path, content: Any, **options: Any) -> str:
    with pytest.raises(WeightsError) as raised:
        loaded(folder, content, **options)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_two_that_differ_are_not_chosen_between(tmp_path: Path, model: nn.Module) -> None:
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    message = refusal(tmp_path, {"model": model.state_dict(), "model_ema": AveragedModel(other).state_dict()})
    assert "different weights for this network under 'model', 'model_ema'; save the one that is meant alone" in message


def test_another_architecture_stays_one_however_it_is_wrapped(tmp_path: Path) -> None:
    other = nn.Sequential(nn.Linear(3, 3))
    message = refusal(tmp_path, {"state_dict": nn.DataParallel(other).state_dict()})
    assert "tiny are of another architecture: they lack 'features.0.weight'" in message
    message = refusal(tmp_path, {"student": other.state_dict(), "teacher": other.state_dict()})
    assert "holds state dicts under 'student', 'teacher', and none of them is for this network" in message


def test_half_a_network_behind_a_prefix_is_not_taken(tmp_path: Path, model: nn.Module) -> None:
    state = prefixed(model.state_dict(), "student.") | prefixed(model.state_dict(), "teacher.")
    assert "another architecture" in refusal(tmp_path, state)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_network_is_told_and_not_run(tmp_path: Path, model: nn.Module, zipped: bool) -> None:
    message = refusal(tmp_path, nn.Sequential(nn.Linear(3, 3)), _use_new_zipfile_serialization=zipped)
    assert "torch.nn.modules" in message or "holds a whole pickled network" in message
    assert "torch.save(model.state_dict(), PATH)" in message
    if zipped:
        assert "holds a whole pickled network (tests.tiny_network." in refusal(tmp_path, model)


def test_a_torchscript_is_told(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(3, 3)).save(str(tmp_path / "tiny.pth"))
    with pytest.raises(WeightsError, match=r"is a TorchScript archive; .*torch\.jit\.load\(PATH\)\.state_dict\(\)"):
        load_pretrained(TINY, tmp_path)


def test_what_else_a_file_can_be(tmp_path: Path) -> None:
    assert "numpy" in refusal(tmp_path, {"model": {}, "best": np.float64(0.5)})
    assert "does not hold a state dict (names with tensors); its keys are epoch, best" in refusal(
        tmp_path, {"epoch": 3, "best": 0.5}
    )
    assert "does not hold a state dict" in refusal(tmp_path, torch.zeros(3))
    (tmp_path / "tiny.pth").write_bytes(LFS)
    with pytest.raises(WeightsError, match=r"tiny\.pth is a Git LFS pointer, .*'git lfs pull'"):
        load_pretrained(TINY, tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiny.pt", "tiny.pth does not exist; there is tiny.pt: rename it"),
        ("tiny.pth.tar", "there is tiny.pth.tar: rename it"),
        ("tiny.safetensors", "there is tiny.safetensors; convert it: torch.save(safetensors"),
        ("tinny.pth", "there is tinny.pth: rename it if it is meant"),
    ],
)
def test_a_file_of_nearly_the_right_name_is_named(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(WeightsError) as raised:
        load_pretrained(TINY, tmp_path)
    assert words in str(raised.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older form"])
def test_half_a_download_is_one_line_wherever_it_ends(tmp_path: Path, model: nn.Module, zipped: bool) -> None:
    torch.save(model.state_dict(), tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole.pth").read_bytes()
    for end in range(0, len(whole), len(whole) // 60):
        (tmp_path / "tiny.pth").write_bytes(whole[:end])
        with pytest.raises(WeightsError, match="is not a file of weights"):
            load_pretrained(TINY, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older form"])
def test_a_damaged_file_is_one_line_or_weights(
    tmp_path: Path, model: nn.Module, zipped: bool, draw: np.random.Generator
) -> None:
    """A pickle with other bytes is another program. What stays readable is looked at value by value."""
    torch.save(model.state_dict(), tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole.pth").read_bytes()
    refused = []
    for _ in range(150):
        damaged = bytearray(whole)
        for place in draw.integers(0, 1500, draw.integers(1, 4)):
            damaged[place] = draw.integers(0, 256)
        (tmp_path / "tiny.pth").write_bytes(damaged)
        try:
            load_pretrained(TINY, tmp_path)
        except WeightsError as error:
            refused.append(str(error))
    assert len(refused) > 15
    assert [line for line in refused if len(line.splitlines()) != 1] == []


NO_WEIGHTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "NaN": (lambda value: torch.full_like(value, torch.nan), "are NaN or infinite in {n} of the {n} values of {name}"),
    "one infinity": (
        lambda value: value.masked_fill(value == value.max(), torch.inf),
        "are NaN or infinite in 1 of the {n}",
    ),
    "beyond Float32": (lambda value: value.double() * 1e300, "are NaN or infinite in {n} of the {n} values of {name}"),
    "sparse": (lambda value: value.to_sparse(), "hold {name} as a sparse or nested tensor"),
    "compressed rows": (lambda value: value.flatten(1).to_sparse_csr(), "hold {name} as a sparse or nested tensor"),
    "nested": (lambda value: torch.nested.nested_tensor([value[0]]), "hold {name} as a sparse or nested tensor"),
    "on no device": (lambda value: value.to("meta"), "lack the values of {name}"),
    "quantized": (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "hold {name} as torch.qint8"),
    "complex": (lambda value: value.to(torch.complex64), "hold {name} as torch.complex64; expected floats"),
    "whole numbers": (lambda value: (100 * value).to(torch.int8), "hold {name} as torch.int8; expected floats"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_tensors_that_are_no_weights_are_named(tmp_path: Path, model: nn.Module, kind: str) -> None:
    change, expected = NO_WEIGHTS[kind]
    state = model.state_dict()
    name = next(name for name, value in state.items() if value.dim() == 4)
    with pytest.raises(WeightsError) as told:
        loaded(tmp_path, {**state, name: change(state[name])})
    n = f"{state[name].numel():,}"
    assert str(told.value).startswith(f"the weights in {tmp_path / 'tiny.pth'} {expected.format(name=repr(name), n=n)}")


def test_other_tensors_may_hold_infinities(tmp_path: Path, model: nn.Module) -> None:
    state = model.state_dict()
    name = next(name for name in state if name.endswith("running_var"))
    assert loaded(tmp_path, {**state, name: torch.full_like(state[name], torch.inf)})[name].isinf().all()
    with pytest.raises(WeightsError, match="NaN"):
        loaded(tmp_path, {**state, name: torch.full_like(state[name], torch.nan)})
