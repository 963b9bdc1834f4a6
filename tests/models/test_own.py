"""Networks that the user brings: specs, weights and keys."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.suite import choose, load_suite
from coreml_prune_bench.core.errors import (
    BenchError,
    CellFailedError,
    SuiteError,
    WeightsError,
)
from coreml_prune_bench.models.batchnorm import fold_batchnorm
from coreml_prune_bench.models.layers import prunable_layers
from coreml_prune_bench.models.own import is_spec, own_network
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.training import normalize
from coreml_prune_bench.models.weight_files import weights_fingerprint
from coreml_prune_bench.models.weights import initial_model, load_pretrained, untrained_model
from tests.models.own_files import BLOCK, NET

FORMS = """
from net import net

class Fixed(Module):
    def __init__(self):
        pass

made: Module = Fixed()

async def later():
    return made

def outer():
    def inner():
        return made
"""


def test_a_spec_is_told_from_a_name():
    assert [is_spec(text) for text in ("torchvision:resnet18", "timm:a", "x/y.py:f", "x.py", "resnet50", "tiny")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:", "expected torchvision:NAME, timm:NAME or PATH.py:FUNCTION"),
        ("net.py", "name the function that returns the network: net.py:FUNCTION"),
        ("net.py:missing", "defines no function missing at its top level"),
        ("net.py:hungry", "must be told depth: it is given num_classes at most"),
        ("other.py:net", "No such file"),
        ("net.py:nett", "defines no function nett at its top level; did you mean 'net'?"),
        ("net.py:Net", "Net is a class, expected a function .* def build(num_classes=1000): return Net(num_classes="),
        ("forms.py:Fixed", "Fixed is a class, expected a function .* def build(): return Fixed(), and name that"),
        ("forms.py:made", "made is a value, expected a function .* def build(): return made, and name that"),
        ("forms.py:net", "net is imported by forms.py and not defined in it; name the file that defines it"),
        ("forms.py:later", "later is an async function"),
        ("forms.py:inner", "defines inner within something else, and no function inner at its top level"),
        ("forms.py:other", "no function other at its top level; did you mean 'outer'?"),
        ("forms.py:zzz", "no function zzz at its top level; it defines outer"),
        ("torchvison:resnet18", "unknown network 'torchvison:resnet18'; did you mean 'torchvision:resnet18'?"),
        ("Timm:resnet18", "did you mean 'timm:resnet18'?"),
        ("net:fixed", "unknown network 'net:fixed'; did you mean 'net.py:fixed'?"),
        ("huggingface:x", "expected a name, or torchvision:NAME, timm:NAME or PATH.py:FUNCTION"),
        ("resnet18", "any other network is torchvision:NAME, timm:NAME or PATH.py:FUNCTION"),
        ("syntax.py:net", "is not Python"),
    ],
)
def test_a_spec_that_names_nothing_is_one_clear_line(own_files, monkeypatch, spec, message):
    (own_files / "syntax.py").write_text("def net(:")
    (own_files / "forms.py").write_text(FORMS)
    monkeypatch.chdir(own_files)
    with pytest.raises(BenchError) as raised:
        get_network(spec)
    for part in message.split(" .* "):
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong", "expected wrong to return a torch.nn.Module, got str"),
        ("broken", "NameError: name 'missing' is not defined"),
        ("without_head", r"expected \[1, classes\] of an image, a number for each class, got \[1, 10, 224, 224\]"),
    ],
)
def test_a_function_that_makes_no_such_network_is_named(own_files, function, message):
    network = get_network(f"{own_files}/net.py:{function}")
    with pytest.raises((BenchError, CellFailedError), match=message) as raised:
        untrained_model(network, 10)
    if function == "broken":
        line = 1 + NET.splitlines().index("    return Net(3) + missing")
        assert f"line {line}: " in str(raised.value)


def test_torchvision_names_are_checked_and_near_ones_shown():
    with pytest.raises(BenchError, match=r"no classification network 'resnet5'; did you mean 'resnet50' or"):
        get_network("torchvision:resnet5").build(10)
    with pytest.raises(BenchError, match="no classification network 'fcn_resnet50'"):
        get_network("torchvision:fcn_resnet50").build(10)


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_timm_is_asked_for_where_it_is_missing(refused):
    assert "this needs timm, which the base installation leaves out: pip install 'coreml-prune-bench[timm]'" in refused(
        "build", "--model", "timm:resnet18"
    )


def test_timms_networks_take_what_ours_do_and_are_folded():
    """Trained with other means: what they are given is what their own normalization would make of the pixels."""
    timm = pytest.importorskip("timm")
    model = get_network("timm:mobilenetv3_small_050").build(10).eval()
    assert not any("conv" in name for name, _ in fold_batchnorm(model, 64).named_modules() if "BatchNorm" in name)
    model = get_network("timm:test_vit").build(10).eval()
    torch.manual_seed(0)
    reference = timm.create_model("test_vit", num_classes=10).eval()
    reference.load_state_dict(model.state_dict())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    mean, std = (torch.tensor(reference.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = reference((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
        assert torch.allclose(model(normalize(pixels)), expected, atol=1e-5)


def test_weights_are_those_that_the_function_returns_and_a_fixed_head_is_replaced(own_files):
    network = get_network(f"{own_files}/net.py:fixed")
    state = load_pretrained(network, None)
    assert torch.equal(initial_model(network, state, 7).head.weight, state["head.weight"])
    assert initial_model(network, state, 10).head.weight.shape == (10, 16)
    assert untrained_model(network, 10).head.weight.shape == (10, 16)


def test_a_function_that_must_be_told_the_classes_has_no_weights_of_its_own(own_files):
    network = get_network(f"{own_files}/net.py:must_be_told")
    with pytest.raises(WeightsError, match="give num_classes a default"):
        load_pretrained(network, None)
    assert untrained_model(network, 3).head.weight.shape == (3, 16)


@pytest.mark.slow
def test_weights_from_a_folder_are_torchs_layout(tmp_path):
    """Attention's projections included, which we hold otherwise."""
    torch.manual_seed(1)
    reference = torchvision.models.vit_b_16(num_classes=5)
    nn.init.normal_(reference.heads.head.weight)
    torch.save(reference.state_dict(), tmp_path / "torchvision-vit_b_16.pth")
    network = get_network("torchvision:vit_b_16")
    model = initial_model(network, load_pretrained(network, tmp_path), 5)
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(model(images), reference.eval()(images), atol=1e-4)
    assert model.state_dict().keys() == reference.state_dict().keys()
    # Twelve blocks of four, the patches' convolution and the head.
    assert len(prunable_layers(model)) == 12 * 4 + 2


def test_weights_of_the_default_kind_are_known_without_downloading_them():
    assert weights_fingerprint(get_network("torchvision:resnet18"), None) == "torchvision's default for resnet18"


def keys(own_files: Path) -> set[str]:
    return {cell.build_key for cell in lay_out(load_suite(str(own_files / "mine.toml")), None)}


def test_a_key_depends_on_the_file(own_files):
    before = keys(own_files)
    (own_files / "net.py").write_text(NET.replace("bias=False", "bias=True"))
    assert not keys(own_files) & before


def test_the_sources_are_the_file_and_what_it_imports(own_files):
    sources = get_network(f"{own_files}/net.py:net").own.sources
    before = sources()
    assert set(before) == {"file", "blocks.py", "torch"}
    assert before["torch"] == torch.__version__.split("+")[0]
    (own_files / "blocks.py").write_text(BLOCK + "# changed")
    assert sources()["blocks.py"] != before["blocks.py"]
    (own_files / "unrelated.py").write_text("x = 1")
    assert set(sources()) == set(before)


def test_what_macos_writes_beside_a_source_is_none(own_files):
    (own_files / "net.py").write_text("import parts\n" + NET)
    (own_files / "parts").mkdir()
    (own_files / "parts" / "__init__.py").write_text("")
    (own_files / "parts" / "._a.py").write_bytes(b"\0\x05\x16\x07 no Python")
    sources = get_network(f"{own_files}/net.py:net").own.sources
    assert set(sources()) == {"file", "blocks.py", "parts/__init__.py", "torch"}


def test_a_key_depends_on_the_weights_that_the_function_returns(own_files):
    (own_files / "weights.txt").write_text("1.0")
    (own_files / "net.py").write_text(NET + LOADING)

    def fingerprint() -> str:
        own_network.cache_clear()  # as in another run
        return weights_fingerprint(get_network(f"{own_files}/net.py:loaded"), None)

    before = fingerprint()
    assert before == fingerprint()
    (own_files / "weights.txt").write_text("2.0")
    assert before != fingerprint()
    assert before.startswith("as loaded returns them: ")


LOADING = """

def loaded():
    from pathlib import Path

    net = Net(10)
    nn.init.constant_(net.head.bias, float((Path(__file__).parent / "weights.txt").read_text()))
    return net
"""


def test_laying_out_imports_no_torch(own_files):
    code = (
        "import sys; from coreml_prune_bench.bench.cells import lay_out; "
        "from coreml_prune_bench.bench.suite import load_suite;"
        "[cell.key for cell in lay_out(load_suite(sys.argv[1]), None)]; print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(own_files / "mine.toml")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "False"


def test_the_command_line_puts_networks_in_place_of_the_suites_or_beside_them(own_files):
    suite = load_suite("digits")
    spec = f"{own_files}/net.py:net"
    assert choose(suite, own=[spec]).models == (spec,)
    beside = choose(suite, own=[spec, "torchvision:resnet18"], models=["resnet50"], data=[f"{spec}=digits"])
    assert beside.models == ("resnet50", spec, "torchvision:resnet18")
    assert beside.data[spec] == "digits"
    with pytest.raises(BenchError, match="unknown network 'resnet5'"):
        choose(suite, own=["resnet5"])


def test_two_networks_of_one_name_are_refused(own_files):
    (own_files / "other").mkdir()
    (own_files / "other" / "net.py").write_text(NET)
    suite = choose(load_suite("digits"), own=[f"{own_files}/net.py:net", f"{own_files}/other/net.py:net"])
    with pytest.raises(SuiteError, match="are both named net-net"):
        lay_out(suite, None)
