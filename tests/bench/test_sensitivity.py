"""The `sensitivity` command and cells with an allocation: what is kept, resumed, told and drawn."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import PIL.Image
import pytest
import torch

import coreml_prune_bench.bench.sensitivity
import coreml_prune_bench.models.pruning.sensitivity
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.report.sensitivity import kept_sensitivities
from tests.tiny_network import TINY

LAYERS = ["features.0", "features.3", "features.6", "classifier"]


@pytest.fixture
def weights(tmp_path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save(untrained_model(TINY, 3).state_dict(), folder / "tiny.pth")
    return folder


@pytest.fixture
def command(images, weights, tmp_path) -> tuple[object, ...]:
    return (
        "sensitivity", "tiny", "--data", f"imagefolder:{images}", "--weights", weights,
        "--results", tmp_path / "results", "--samples", 8, "--levels", "0.9,0.5",
    )  # fmt: skip


def with_option(command: tuple[object, ...], option: str, value: object) -> tuple[object, ...]:
    """The command with another value of an option, or with one more."""
    at = command.index(option) if option in command else len(command)
    return (*command[:at], option, value, *command[at + 2 :])


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """The layers that are measured from now on, in order."""
    names: list[str] = []
    real = coreml_prune_bench.models.pruning.sensitivity.layer_effects

    def spy(*arguments, **options):
        for found in real(*arguments, **options):
            names.append(found.layer)
            yield found

    monkeypatch.setattr(coreml_prune_bench.models.pruning.sensitivity, "layer_effects", spy)
    return names


def test_every_layer_at_every_level_as_json(run_bench, command):
    code, output, errors = run_bench(*command, "--json")
    assert code == 0, errors
    found = json.loads(output)
    assert (found["network"], found["split"], found["images"]) == ("tiny", "train", 8)
    assert [layer["layer"] for layer in found["layers"]] == LAYERS
    for layer in found["layers"]:
        assert [effect["sparsity"] for effect in layer["effects"]] == [0.5, 0.9]
        assert all(effect["divergence"] > 0 and 0 <= effect["top1"] <= 1 for effect in layer["effects"])


def test_it_is_measured_once_and_a_stopped_run_goes_on_where_it_was(run_bench, command, measured, monkeypatch):
    write = coreml_prune_bench.bench.sensitivity.write_atomically

    def stop_after_two(path, text):
        write(path, text)
        if len(json.loads(text)["layers"]) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(coreml_prune_bench.bench.sensitivity, "write_atomically", stop_after_two)
    code, _, errors = run_bench(*command)
    assert (code, "interrupted" in errors) == (130, True)
    monkeypatch.setattr(coreml_prune_bench.bench.sensitivity, "write_atomically", write)
    code, output, _ = run_bench(*command)
    assert code == 0
    assert measured == LAYERS
    assert run_bench(*command)[1] == output
    assert measured == LAYERS
    (kept,) = kept_sensitivities(command[command.index("--results") + 1])
    assert [layer.layer for layer in kept.layers] == LAYERS
    fresh = run_bench(*command[:-1], "0.5,0.9,0.95")[1]
    assert len(measured) == 8
    assert [row.split("|")[3] for row in fresh.splitlines()[4:]] == [
        row.split("|")[3] for row in output.splitlines()[4:]
    ]


def test_the_table_goes_to_a_file_too_and_a_layers_table_can_be_used_in_a_suite(
    run_bench, command, images, weights, tmp_path
):
    code, output, _ = run_bench(*command, "--sparsity", 0.75, "--out", tmp_path / "out.txt")
    assert code == 0
    assert (tmp_path / "out.txt").read_text() == output
    suite = tmp_path / "own.toml"
    head = 'description = "d"\nmodels = ["tiny"]\n[[configs]]\nalgorithm = "post-training"\n'
    suite.write_text(head + output[output.index("# As large as 75% for all layers") :])
    assert [config.name for config in load_suite(str(suite)).configs] == ["75%, by layer"]
    code, _, errors = run_bench(
        "build",
        "--suite",
        suite,
        "--data",
        f"imagefolder:{images}",
        "--weights",
        weights,
        "--results",
        tmp_path / "other",
    )
    assert code == 0, errors


@pytest.mark.parametrize("name", ["x.svg", "x.png"])
def test_the_chart_has_a_mark_for_each_layer_level_and_measure(run_bench, command, tmp_path, name):
    assert run_bench(*command, "--plot", tmp_path / name)[0] == 0
    if name.endswith("png"):
        with PIL.Image.open(tmp_path / name) as image:
            assert image.width > image.height > 2 * 17 * len(LAYERS)
        return
    drawn = ElementTree.parse(tmp_path / name).iter()
    told = [one.get("aria-label") or "" for one in drawn if one.get("aria-roledescription") == "point"]
    assert len(told) == 2 * 2 * len(LAYERS)
    assert told[0].startswith("features.0 at 50 %\nerror ")


def test_without_the_library_that_draws_it_is_refused_before_it_is_measured(refused, command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "altair", None)
    assert "coreml-prune-bench[charts]" in refused(*command, "--plot", tmp_path / "x.svg")
    assert not (tmp_path / "results").exists()


def test_a_cell_with_an_allocation_is_as_large_as_the_uniform_one_and_is_named_for_it(
    run_bench, images, weights, tmp_path, measured
):
    suite = tmp_path / "own.toml"
    config = '[[configs]]\nalgorithm = "sparse-gpt"\nsparsity = {}\ncalibration_samples = 8\n{}'
    allocation = 'allocation = "sensitivity"\n'
    suite.write_text(
        'description = "d"\nmodels = ["tiny"]\n' + config.format(0.75, "") + config.format("[0.75, 0.5]", allocation)
    )
    results = tmp_path / "results"
    code, output, errors = run_bench(
        "run", "--suite", suite, "--data", f"imagefolder:{images}", "--weights", weights, "--results", results,
        "--format", "json",
    )  # fmt: skip
    assert code == 0, errors
    assert measured == LAYERS  # once for both
    rows = {row["config"]: row for row in json.loads(output)}
    uniform, allocated = (rows[f"Unstructured Sparsity 75%{words}"] for words in ("", ", allocated by sensitivity"))
    # Rounding of every layer to whole weights, and of its place in the file to 64 bytes.
    assert allocated["weight_bytes"] == pytest.approx(uniform["weight_bytes"], abs=3 * 2 * 64)
    assert (uniform["sparsity"], allocated["sparsity"]) == (0.75, None)
    record = next(r for r in read_records(results) if r.pruning.config.endswith("75%, allocated by sensitivity"))
    assert record.package
    assert len({layer.target for layer in record.package.layers}) > 1
    assert all(layer.sparsity == pytest.approx(layer.target, abs=0.005) for layer in record.package.layers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--levels", "0.5,1"), "--levels 0.5,1: expected fractions above 0 and below 1"),
        (("--levels", "half"), "--levels half: expected fractions"),
        (("--sparsity", "75"), "--sparsity 75: expected a fraction"),
        (("--sparsity", "0.05"), "--sparsity 0.05: expected a fraction above 0.0625, which the mask takes"),
        (("--out", "none/x.txt"), "--out none/x.txt: none is not a folder"),
        (("--plot", "none/x.png"), "--plot none/x.png: none is not a folder"),
        (("--plot", "x.pdf"), "--plot x.pdf: expected a name that ends in .svg or .png"),
        (("--data", "digits"), "digits has 10 classes, the weights of tiny 3"),
    ],
)
def test_bad_options_are_one_line(refused, command, options, message):
    assert message in refused(*with_option(command, *options))


def test_a_part_of_data_is_measured_on_its_training_images(run_bench, command, images):
    whole = json.loads(run_bench(*command, "--json")[1])
    on_a_part = with_option(command, "--data", f"imagefolder:{images}#selection")
    part = json.loads(run_bench(*on_a_part, "--json")[1])
    assert part["layers"] == whole["layers"]


OWN = """
import torch


class Net(torch.nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.features = torch.nn.Conv2d(3, 8, 3, stride=2)
        self.never_called = torch.nn.Linear(8, 8)
        self.head = torch.nn.Linear(8, num_classes)

    def forward(self, images):
        return self.head(self.features(images).relu().mean((2, 3))){}


def build(num_classes: int = 3):
    return Net(num_classes)
"""


def test_a_network_of_one_s_own(run_bench, refused, images, tmp_path):
    def command(file: str, returned: str) -> tuple[object, ...]:
        (tmp_path / file).write_text(OWN.format(returned))
        return (
            "sensitivity", f"{tmp_path}/{file}:build", "--data", f"imagefolder:{images}", "--samples", 4,
            "--results", tmp_path / "results", "--sparsity", 0.5, "--json",
        )  # fmt: skip

    code, output, errors = run_bench(*command("net.py", ""))
    assert code == 0, errors
    assert json.loads(output)["allocation"].keys() == {"features", "head"}  # the layer that is never called stays dense
    assert "expected [1, classes] of an image" in refused(*command("shape.py", ".shape"))


def test_data_without_a_train_split(refused, command, images):
    for file in (images / "train").rglob("*.jpg"):
        file.unlink()
    for folder in (images / "train").iterdir():
        folder.rmdir()
    (images / "train").rmdir()
    assert "no train split" in refused(*command)
