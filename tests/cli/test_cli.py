"""The command line: bad input is one clear line and exit code 2, and nothing is lost or half-written."""

import errno
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import coremltools as ct
import PIL.Image
import pytest
import torch
import typer
from coremltools.converters.mil import Builder as mb

from coreml_prune_bench.cli.app import COMMANDS, _imported, main
from coreml_prune_bench.cli.command import Command, Group
from coreml_prune_bench.models.quiet import silenced
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weights import untrained_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def suite(tmp_path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(
        'description = "d"\nmodels = ["tiny"]\nweights = "none"\ntraining = {epochs = 1, batch_size = 4}\n'
        '[[configs]]\nalgorithm = "sparse-gpt"\nsparsity = 0.5\n'
    )
    return path


def truncate(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:200])


def test_help_teaches_every_command(run_bench):
    code, output, _ = run_bench("--help")
    assert code == 0
    for command in ("run", "build", "accuracy", "inspect", "table"):
        assert f" {command} " in output
    assert "python run_bench.py run" in output


def test_without_arguments_the_commands_are_listed(run_bench):
    code, output, _ = run_bench()
    assert (code, output) == (2, run_bench("--help")[1])


def test_the_list_of_help_says_of_a_command_what_the_command_says_of_itself():
    for name, (place, _, line) in COMMANDS.items():
        module, _, attribute = place.partition(":")
        command = getattr(import_module(f"coreml_prune_bench.cli.{module}"), attribute)
        own = command.info.help if isinstance(command, typer.Typer) else inspect.getdoc(command)
        assert line == own.splitlines()[0], name


def test_help_and_table_wait_for_no_other_command():
    code = "import sys; from coreml_prune_bench.cli.app import main; sys.argv[1:] = {}\ntry: main()\n"
    code += "finally: print([name for name in {} if name in sys.modules])"
    for arguments, unneeded in (
        (["--help"], ("numpy", "pydantic", "scipy", "torch", "coreml_prune_bench.cli.table")),
        (["table", "--results", str(ROOT / "results/few-images")], ("scipy", "pandas", "torch", "coremltools")),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(arguments, unneeded)], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("called", ["run_bench.py", "coreml-prune-bench"])
def test_the_version_and_usage_name_the_program_as_it_was_called(called, monkeypatch, capsys):
    for arguments, expected in (
        (["--version"], f"coreml-prune-bench {version('coreml-prune-bench')}"),
        (["gate", "--help"], "Usage: python run_bench.py gate" if called.endswith(".py") else f"Usage: {called} gate"),
    ):
        monkeypatch.setattr(sys, "argv", [f"/somewhere/{called}", *arguments])
        with pytest.raises(SystemExit):
            main()
        assert expected in capsys.readouterr().out


def test_a_run_on_a_users_own_images(run_bench, suite, images, tmp_path):
    arguments = ("run", "--suite", suite, "--data", f"imagefolder:{images}", "--results", tmp_path / "results")
    code, output, errors = run_bench(*arguments, "--format", "json")
    assert code == 0, errors
    dense, pruned = json.loads(output)
    assert (dense["algorithm"], dense["images"]) == ("dense", 12)
    assert (pruned["model"], pruned["sparsity"], pruned["runtime"]) == ("tiny", 0.5, "portable")
    assert "2 of 2 cells measured now" in errors
    again = run_bench(*arguments, "--format", "json")
    assert again[:2] == (0, output)
    assert "0 of 2 cells measured now" in again[2]
    code, table, _ = run_bench("table", "--results", tmp_path / "results", "--format", "json")
    assert (code, table) == (0, output)


@pytest.mark.slow
def test_output_that_is_not_a_terminal_is_plain(suite, images, tmp_path):
    code = (
        "import tests.tiny_network, sys; from coreml_prune_bench.cli.app import main; "
        "from coreml_prune_bench.bench import contention; contention.busy_processors = lambda: 0.0; "
        "sys.argv[0] = 'run_bench.py'; main()"
    )
    arguments = ["build", "--suite", suite, "--data", f"imagefolder:{images}", "--results", tmp_path / "results"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    # No bars, and not the eight warnings of coremltools; a line a minute, where a machine is slow.
    assert [line for line in done.stderr.splitlines() if not re.match(r"packages \d/2, tiny, .* \d+/\d+", line)] == []
    assert "\x1b" not in done.stdout
    assert done.stdout.count("tiny.mlpackage") == 2


def test_changed_images_are_measured_again_and_what_does_not_depend_on_them_is_not(run_bench, suite, images, tmp_path):
    arguments = ("run", "--suite", suite, "--data", f"imagefolder:{images}", "--results", tmp_path / "results")
    run_bench(*arguments)
    PIL.Image.new("RGB", (32, 32)).save(images / "val" / "a" / "0.jpg")
    artifacts = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").glob("artifacts/*/manifest.json")}
    assert "2 of 2 cells measured now" in run_bench(*arguments)[2]
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").glob("artifacts/*/manifest.json")}
    assert after == artifacts  # evaluated again, not trained or pruned again
    PIL.Image.new("RGB", (32, 32)).save(images / "train" / "a" / "0.jpg")
    assert "2 of 2 cells measured now" in run_bench(*arguments)[2]


# --- bad input


def test_an_unknown_suite_key(refused, suite):
    suite.write_text(suite.read_text().replace("sparsity", "sparsty"))
    assert "own.toml: [[configs]] 1: unknown key 'sparsty'; did you mean 'sparsity'?" in refused(
        "run", "--suite", suite
    )


def test_a_missing_data_folder(refused, suite, tmp_path):
    line = refused(
        "run", "--suite", suite, "--data", f"imagefolder:{tmp_path / 'nowhere'}", "--results", tmp_path / "r"
    )
    assert "nowhere" in line
    assert not (tmp_path / "r").exists()


def test_a_label_that_is_missing(refused, suite, images, tmp_path):
    (images / "classes.txt").write_text("a\nb\n")
    line = refused("run", "--suite", suite, "--data", f"imagefolder:{images}", "--results", tmp_path / "r")
    assert "c" in line
    assert "classes.txt" in line


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_truncated_jpeg_is_named_and_skipped_only_if_asked(refused, run_bench, suite, images, tmp_path, split):
    truncate(images / split / "b" / "2.jpg")
    arguments = ("run", "--suite", suite, "--data", f"imagefolder:{images}", "--results", tmp_path / "r")
    line = refused(*arguments)
    assert f"cannot decode {split}/b/2.jpg" in line
    assert "--skip-bad-images" in line
    code, output, errors = run_bench(*arguments, "--skip-bad-images", "--format", "json")
    assert code == 0, errors
    assert [row["images"] for row in json.loads(output)] == [11 if split == "val" else 12] * 2
    records = [json.loads(path.read_text())["data"] for path in (tmp_path / "r").glob("records/*.json")]
    key = "skipped" if split == "val" else "train_skipped"
    assert [record[key] for record in records] == [[f"{split}/b/2.jpg"]] * 2


def test_weights_of_another_architecture(refused, images, tmp_path):
    torch.save(get_network("mobilenet_v3_small").build(3).state_dict(), tmp_path / "resnet50.pth")
    line = refused(
        "run", "--suite", "imagenet", "--models", "resnet50", "--weights", tmp_path, "--data", f"imagefolder:{images}",
        "--results", tmp_path / "r",
    )  # fmt: skip
    assert "the weights for resnet50 are of another architecture" in line


def test_a_missing_weight_folder_or_file(refused, images, tmp_path):
    arguments = ("run", "--suite", "imagenet", "--data", f"imagefolder:{images}", "--weights")
    assert "no folder of weights at" in refused(*arguments, tmp_path / "nowhere")
    assert "mobilenet_v2.pth does not exist" in refused(*arguments, tmp_path)
    assert "trains its networks from scratch: leave out --weights" in refused("run", "--weights", tmp_path)


def test_fewer_classes_than_the_head_without_training(refused, images, tmp_path):
    torch.save(
        untrained_model(get_network("mobilenet_v3_small"), 1000).state_dict(), tmp_path / "mobilenet_v3_small.pth"
    )
    line = refused(
        "run", "--suite", "imagenet", "--models", "mobilenet_v3_small", "--weights", tmp_path, "--data",
        f"imagefolder:{images}", "--results", tmp_path / "r",
    )  # fmt: skip
    assert "has 3 classes, the weights of mobilenet_v3_small 1000; for a new head, suite imagenet needs" in line


def test_a_package_that_is_not_one(refused, images, tmp_path):
    (tmp_path / "folder.mlpackage").mkdir()
    (tmp_path / "file.mlpackage").write_text("text")
    for name in ("nowhere.mlpackage", "folder.mlpackage", "file.mlpackage"):
        for command in (["inspect"], ["accuracy", "--data", f"imagefolder:{images}"]):
            assert name in refused(*command, tmp_path / name)


def test_a_package_with_an_unknown_operation_names_it(refused, images, tmp_path):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 32, 32))], opset_version=ct.target.iOS17)
    def program(image):
        return mb.reduce_sum(x=mb.non_zero(x=image, name="found"), axes=[0], keep_dims=False)

    with silenced():
        model = ct.convert(
            program,
            inputs=[ct.ImageType("image", (1, 3, 32, 32))],
            minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        )
    model.save(str(tmp_path / "odd.mlpackage"))
    specification = tmp_path / "odd.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    specification.write_bytes(specification.read_bytes().replace(b"non_zero", b"non_null"))
    line = refused("accuracy", tmp_path / "odd.mlpackage", "--data", f"imagefolder:{images}")
    assert "non_null" in line
    assert "odd.mlpackage" in line


def test_a_class_count_that_does_not_match(refused, package, tmp_path):
    line = refused("accuracy", package, "--data", "digits")
    assert "its output has shape [3], the data set has 10 classes" in line


@pytest.mark.parametrize("bytes_until_full", [1_000, 40_000, 50_000])
def test_a_full_disk(refused, run_bench, suite, images, tmp_path, monkeypatch, bytes_until_full):
    """Full in the middle of the trained network, of the package, and of the pruned package."""
    real_open, written = io.open, 0

    class Full(io.FileIO):
        def write(self, data):
            nonlocal written
            written += len(data)
            if written > bytes_until_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)
            return super().write(data)

    def limited(file, mode="r", *rest, **named):
        inside = isinstance(file, str | os.PathLike) and Path(file).is_relative_to(tmp_path / "r")
        return Full(file, "w") if inside and mode == "wb" else real_open(file, mode, *rest, **named)

    arguments = ("run", "--suite", suite, "--data", f"imagefolder:{images}", "--results", tmp_path / "r")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "_USE_CP_SENDFILE", False)
        patched.setattr(io, "open", limited)
        patched.setattr("builtins.open", limited)
        line = refused(*arguments)
    assert "No space left on device" in line
    assert not list((tmp_path / "r").rglob("*.tmp"))
    code, _, errors = run_bench(*arguments)
    assert code == 0, errors


@pytest.mark.parametrize("arguments", [("run", "--sweet"), ("table", "--format", "sweet"), ("sweet",)])
def test_an_unknown_command_option_or_value(run_bench, arguments):
    code, output, errors = run_bench(*arguments)
    assert (code, output) == (2, "")
    assert "sweet" in errors


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("accuracy", "a.mlpackage", "b.mlpackage", "--data", "digits", "--data", "imagefolder:x"), "--data"),
        (("accuracy", "a.mlpackage", "--data", "digits", "--class-map", "a.csv", "--class-map=b.csv"), "--class-map"),
        (("table", "--results", "a", "--results", "b"), "--results"),
        (("baseline", "save", "--results", "a", "--results", "b"), "--results"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_of_two_values_where_one_counts_none_is_left_out_without_a_word(refused, arguments, option):
    assert refused(*arguments) == f"error: {option} takes one value, and was given 2"


def test_options_that_take_several_values_and_flags_may_be_repeated(run_bench, package, images):
    arguments = ("accuracy", package, "--data", f"imagefolder:{images}", "--json")
    assert run_bench(*arguments, "--json") == run_bench(*arguments)
    told = run_bench("run", "--suite", "imagenet", "--model", "resnet50", "--model", "vgg16")[2]
    assert told.startswith("error: suite imagenet has no 'vgg16'")


def test_every_command_and_every_one_below_it_looks_at_what_it_was_given():
    waiting = [_imported(name) for name in COMMANDS]
    while waiting:
        one = waiting.pop()
        assert isinstance(one, Command | Group), one.name
        waiting += getattr(one, "commands", {}).values()


def test_an_empty_results_folder(refused, tmp_path):
    assert "no records in" in refused("table", "--results", tmp_path)


# --- accuracy and inspect


def test_accuracy_of_any_package_with_its_standard_error(run_bench, package, images, tmp_path):
    other = shutil.copytree(package, tmp_path / "other.mlpackage")
    code, output, errors = run_bench("accuracy", package, other, "--data", f"imagefolder:{images}", "--json")
    assert code == 0, errors
    first, second = json.loads(output)
    assert first | {"package": ""} == second | {"package": ""}
    p = first["top1"] / 100
    assert first["top1_stderr"] == pytest.approx(100 * (p * (1 - p) / 12) ** 0.5)
    assert (first["images"], first["runtime"]) == (12, "portable")


def test_inspect_says_what_a_package_holds(run_bench, package):
    code, output, _ = run_bench("inspect", package)
    assert code == 0
    assert "input: image, image RGB [32, 32, 3] uint8" in output
    assert "deployment target: iOS17 / macOS14" in output
    assert "| features_6_weight_to_fp16 | 32x16x3x3 | float16 | dense " in output
    content = json.loads(run_bench("inspect", package, "--json")[1])
    assert content["operations"]["conv"] == 3
    assert content["weight_bytes"] == (package / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
