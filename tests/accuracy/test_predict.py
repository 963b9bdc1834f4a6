"""`predict` and `export-onnx`: what goes in is what was asked for, what comes out is what the package computes."""

import json
import os
from pathlib import Path

import coremltools as ct
import numpy as np
import onnx
import onnxruntime
import PIL.Image
import pytest
import torch
from coremltools.converters.mil import Builder as mb

import coreml_prune_bench.runtimes.portable.export
from coreml_prune_bench.accuracy.predict import _in_mode, describe, fit
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.data import preprocess
from coreml_prune_bench.models.quiet import silenced
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.runtimes.portable import load
from tests.runtimes.portable.bombs import BOMBS

COLOURS = ["red", "green", "blue"]


def save(path, program, inputs=None, **options):
    with silenced():
        model = ct.convert(
            program, inputs=inputs, minimum_deployment_target=ct.target.iOS17, skip_model_load=True, **options
        )
    model.save(str(path))
    return path


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """A classifier: the probability of a colour is its share of all the light. Images of 8 x 6 (height x width)."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 8, 6))], opset_version=ct.target.iOS17)
    def program(image):
        light = mb.reduce_sum(x=image, axes=[2, 3], keep_dims=False)  # [1, 3]
        return mb.real_div(x=light, y=mb.reduce_sum(x=light, axes=[1], keep_dims=True), name="share")

    path = tmp_path_factory.mktemp("colours") / "colours.mlpackage"
    return save(path, program, [ct.ImageType("image", (1, 3, 8, 6))], classifier_config=ct.ClassifierConfig(COLOURS))


class Negative(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 255 - image, image.mean(dim=(1, 3))


@pytest.fixture(scope="session")
def negative(tmp_path_factory):
    """An image in, its negative out, beside the brightness of each row."""

    gray = ct.colorlayout.GRAYSCALE
    return save(
        tmp_path_factory.mktemp("negative") / "negative.mlpackage",
        torch.jit.trace(Negative(), torch.ones(1, 1, 8, 6)),
        [ct.ImageType("image", (1, 1, 8, 6), color_layout=gray)],
        outputs=[ct.ImageType("negative", color_layout=gray), ct.TensorType("rows")],
    )


class Scale(torch.nn.Module):
    def forward(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return x * factor


@pytest.fixture(scope="session")
def scaled(tmp_path_factory):
    """Numbers times a factor: x is [1, 3] to [1, 20], 4 by default; factor is a vector of one."""
    example = torch.ones(1, 4), torch.ones(1)
    columns = ct.RangeDim(3, 20, default=4)
    return save(
        tmp_path_factory.mktemp("scaled") / "scaled.mlpackage",
        torch.jit.trace(Scale(), example),
        [ct.TensorType("x", (1, columns)), ct.TensorType("factor", (1,))],
        outputs=[ct.TensorType("y")],
    )


@pytest.fixture
def picture(tmp_path):
    """8 x 6, green with a little red: 200 to 50."""
    path = tmp_path / "picture.png"
    PIL.Image.new("RGB", (6, 8), (50, 200, 0)).save(path)
    return path


# --- predict


def test_a_classifier_names_its_classes(run_bench, colours, picture):
    code, output, errors = run_bench("predict", colours, "--input", f"image={picture}", "--top", "2", "--json")
    assert code == 0, errors
    result = json.loads(output)
    assert (result["runtime"], result["precision"]) == ("portable", "float32")
    assert result["inputs"] == {"image": f"{picture}, 6x8 RGB"}
    label, probabilities = result["outputs"].values()
    assert label == {"kind": "label", "value": "green"}
    assert probabilities["classes"] == 3
    assert [row["label"] for row in probabilities["top"]] == ["green", "red"]
    assert [row["probability"] for row in probabilities["top"]] == pytest.approx([0.8, 0.2])


def test_a_classifier_for_people(run_bench, colours, picture):
    code, output, _ = run_bench("predict", colours, "--input", f"image={picture}")
    assert code == 0
    assert f"input image: {picture}, 6x8 RGB" in output
    assert "output classLabel: green" in output
    assert "the 3 likeliest of 3 classes" in output
    assert "| green   | 0.8           |" in output


def test_an_image_of_another_size_is_resized_only_if_asked(refused, run_bench, colours, tmp_path):
    photo = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 20, 4), np.uint8)
    PIL.Image.fromarray(pixels).save(photo)
    line = refused("predict", colours, "--input", f"image={photo}")
    assert f"--input image={photo}: is 20x40, expected shape [8, 6, 3] (height, width, channels); --resize" in line
    code, output, errors = run_bench("predict", colours, "--input", f"image={photo}", "--resize", "--json")
    assert code == 0, errors
    told = json.loads(output)["inputs"]["image"]
    assert told == f"{photo}, 20x40 RGBA, converted to RGB, resized and cropped to 6x8"


def test_fitting_is_what_accuracy_feeds_or_covers_the_place():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    image = PIL.Image.fromarray(pixels)
    np.testing.assert_array_equal(np.asarray(fit(image, 224, 224)), preprocess(image, 224))
    for height, width in ((10, 30), (30, 10), (300, 400), (600, 100)):
        assert fit(image.convert("L"), height, width).size == (width, height)
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255  # the centre, which alone remains
    np.testing.assert_array_equal(np.asarray(fit(PIL.Image.fromarray(wide), 10, 10)), np.full((10, 10), 255))


@pytest.mark.parametrize("mode", ["L", "F", "RGB"])
def test_fitting_a_thin_image_takes_what_is_looked_at(mode):
    """One pixel by 60,000, a ramp along it: the centre is the middle of the ramp."""
    ramp = np.linspace(0, 255, 60_000, dtype=np.float32).reshape(-1, 1)
    image = PIL.Image.fromarray(ramp if mode == "F" else ramp.round().astype(np.uint8)).convert(mode)
    fitted = np.asarray(fit(image, 400, 300), np.float32)
    assert fitted.shape[:2] == (400, 300)
    assert np.abs(fitted - 127.5).max() <= 0.51


def test_an_image_is_not_made_larger_than_anybody_looks_at():
    with pytest.raises(BenchError, match=r"--resize makes images of at most 16,777,216 pixels, not 26000x26000"):
        fit(PIL.Image.new("RGB", (2, 2)), 26_000, 26_000)


def test_the_highest_of_a_large_output_are_those_of_all(monkeypatch):
    """Worked on in parts; equal ones in the order of their places, what is no number last."""
    monkeypatch.setattr("coreml_prune_bench.accuracy.predict._PART", 7)
    values = np.random.default_rng(0).integers(0, 5, 100).astype(np.float32)
    values[[3, 50]], values[60] = np.nan, np.inf
    told = describe(values, 9)
    order = np.argsort(-values, kind="stable")[:9]
    assert [row["index"] for row in told["top"]] == order.tolist()
    assert (told["min"], told["max"], told["not_finite"]) == (0, 4, 3)


def test_a_time_limit_ends_what_does_not_end(refused, run_bench, tmp_path):
    package = BOMBS["an endless loop"](tmp_path / "m.mlpackage")
    np.save(tmp_path / "x.npy", np.ones(4, np.float32))
    np.save(tmp_path / "large.npy", np.full(4, 2e30, np.float32))
    line = refused("predict", package, "--input", f"x={tmp_path / 'x.npy'}", "--time-limit", 4)
    assert line == "error: not done after 4 s (--time-limit), and ended"
    code, output, _ = run_bench("predict", package, "--input", f"x={tmp_path / 'large.npy'}", "--time-limit", 600)
    assert code == 0
    assert "output y: float32 [], 2e+30 to 2e+30" in output


def test_exif_orientation_is_told_and_not_applied(run_bench, colours, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (6, 8)).save(tmp_path / "turned.jpg", exif=exif)
    code, output, errors = run_bench("predict", colours, "--input", f"image={tmp_path / 'turned.jpg'}")
    assert code == 0, errors
    assert "6x8 RGB, EXIF orientation not applied" in output


def test_sixteen_bits_are_cut_and_that_is_told_and_deep_numbers_are_refused(run_bench, refused, negative, tmp_path):
    PIL.Image.fromarray(np.full((8, 6), 40_000, np.uint16)).save(tmp_path / "g.png")
    code, output, errors = run_bench("predict", negative, "--input", f"image={tmp_path / 'g.png'}", "--json")
    assert code == 0, errors
    told = json.loads(output)
    assert told["inputs"]["image"].endswith("g.png, 6x8 I;16, converted to L, of 16 bits the upper 8")
    brightness = next(one for one in told["outputs"].values() if one["kind"] == "array")
    assert (brightness["min"], brightness["max"]) == (156, 156)  # 40,000 / 256; it was 255
    PIL.Image.fromarray(np.full((8, 6), 0.6, np.float32)).save(tmp_path / "f.tif")
    line = refused("predict", negative, "--input", f"image={tmp_path / 'f.tif'}")
    assert "f.tif: its pixels are floats (mode F)" in line


def test_numbers_stay_what_they_are_where_a_package_takes_numbers():
    deep = PIL.Image.fromarray(np.full((8, 6), 40_000, np.uint16))
    image, told = _in_mode(deep, "F")
    assert (image.getpixel((0, 0)), told) == (pytest.approx(40_000 / 257), ", 65,535 as 255")  # as 8 bits would be
    floats = PIL.Image.fromarray(np.full((8, 6), 0.25, np.float32))
    assert _in_mode(floats, "F")[0].getpixel((0, 0)) == 0.25


def test_image_outputs_and_arrays_are_written(run_bench, negative, tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(8, 6)
    PIL.Image.fromarray(pixels).save(tmp_path / "gray.png")
    out = tmp_path / "results" / "first"
    code, output, errors = run_bench(
        "predict", negative, "--input", f"image={tmp_path / 'gray.png'}", "--output-dir", out, "--json"
    )
    assert code == 0, errors
    outputs = json.loads(output)["outputs"]
    file = str(out / "negative.png")
    assert outputs["negative"] == {"kind": "image", "mode": "L", "width": 6, "height": 8, "file": file}
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(file)), 255 - pixels)
    rows = outputs["rows"]
    assert (rows["dtype"], rows["shape"], rows["min"], rows["max"]) == ("float32", [1, 8], 2.5, 44.5)
    assert rows["first"] == [2.5, 8.5, 14.5, 20.5, 26.5, 32.5, 38.5, 44.5]
    assert rows["top"][:2] == [{"index": 7, "value": 44.5}, {"index": 6, "value": 38.5}]
    np.testing.assert_array_equal(np.load(rows["file"]), pixels.mean(axis=1)[None])
    assert sorted(path.name for path in out.iterdir()) == ["negative.png", "rows.npy"]


def test_arrays_from_files_and_numbers_in_a_flexible_shape(run_bench, scaled, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(10, dtype=np.float64)[None])
    (tmp_path / "x.json").write_text("[[0, 1, 2.5]]")
    for file, expected in (("x.npy", [0, 2, 4, 6, 8, 10, 12, 14]), ("x.json", [0, 2, 5])):
        code, output, errors = run_bench(
            "predict", scaled, "--input", f"x={tmp_path / file}", "--input", "factor=2", "--json"
        )
        assert code == 0, errors
        assert json.loads(output)["outputs"]["y"]["first"] == expected


def test_values_that_are_no_numbers_are_told(run_bench, scaled, tmp_path):
    (tmp_path / "x.json").write_text("[[1, NaN, 3]]")
    code, output, _ = run_bench(
        "predict", scaled, "--input", f"x={tmp_path / 'x.json'}", "--input", "factor=2", "--json"
    )
    y = json.loads(output, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))["outputs"]["y"]
    assert (code, y["not_finite"], y["first"], y["max"]) == (0, 1, [2, None, 6], 6)


def test_float16_precision_rounds_and_says_so(run_bench, scaled, tmp_path):
    (tmp_path / "x.json").write_text("[[0.1, 0.1, 0.1]]")
    first = {}
    for precision in ("float32", "float16"):
        arguments = ("--input", f"x={tmp_path / 'x.json'}", "--input", "factor=3", "--precision", precision, "--json")
        result = json.loads(run_bench("predict", scaled, *arguments)[1])
        assert result["precision"] == precision
        first[precision] = np.float32(result["outputs"]["y"]["first"][0])
    assert first["float16"] == np.float16(0.1) * np.float16(3)
    assert first["float32"] != first["float16"]


def test_inputs_that_cannot_be_read_or_do_not_fit(refused, colours, scaled, picture, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zeros.npy").symlink_to("/dev/zero")
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "ragged.json").write_text("[[1, 2], [3]]")
    (tmp_path / "words.json").write_text('["a"]')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "square.npy", np.zeros((4, 4), np.float32))
    np.save(tmp_path / "halves.npy", np.zeros((8, 6, 3), np.float32))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "square.npy").read_bytes()[:100])
    takes = "takes image (an image of shape [8, 6, 3])"
    cases = (
        (colours, [str(picture)], f"expected NAME=VALUE, where {colours} {takes}"),
        (colours, [f"photo={picture}"], f"{colours} has no input 'photo', it {takes}"),
        (colours, [f"imag={picture}"], "; did you mean 'image'?"),
        (colours, [f"image={picture}", f"image={picture}"], "'image' was given already"),
        (colours, [], "expected inputs ['image'], got []"),
        (colours, [f"image={tmp_path / 'gone.png'}"], "gone.png: cannot be read as an image"),
        (colours, [f"image={tmp_path / 'text.png'}"], "text.png: cannot be read as an image"),
        (colours, [f"image={tmp_path / 'halves.npy'}"], "expects uint8 of shape [8, 6, 3], got float32"),
        (colours, [f"image={tmp_path / 'pipe.png'}"], "pipe.png: it is no file, but a folder, a pipe or a device"),
        (scaled, [f"x={tmp_path / 'zeros.npy'}", "factor=1"], "zeros.npy: it is no file"),
        (scaled, ["x=2", "factor=1"], "input 'x' expects shape [1, 3..20], got shape []"),
        (scaled, ["x=two", "factor=1"], "x=two: cannot be read, expected a .npy or .json file or a number"),
        (scaled, [f"x={tmp_path / 'square.npy'}", "factor=1"], "expects shape [1, 3..20], got shape [4, 4]"),
        *(
            (scaled, [f"x={tmp_path / name}", "factor=1"], f"{name}: {why}")
            for name, why in (
                ("gone.npy", "cannot be read"),
                ("pickled.npy", "cannot be read"),
                ("cut.npy", "cannot be read"),
                ("ragged.json", "cannot be read"),
                ("deep.json", "cannot be read"),
                ("words.json", "expected numbers"),
            )
        ),
    )
    for package, inputs, message in cases:
        assert message in refused("predict", package, *(part for given in inputs for part in ("--input", given)))


def test_an_output_folder_that_is_a_file(refused, colours, picture):
    assert "is a file; expected a folder" in refused(
        "predict", colours, "--input", f"image={picture}", "--output-dir", picture
    )


def test_a_function_that_is_not_there(refused, colours, picture, tmp_path):
    message = "no function 'other', expected one of main"
    assert message in refused("predict", colours, "--function", "other", "--input", f"image={picture}")
    assert message in refused("export-onnx", colours, tmp_path / "m.onnx", "--function", "other")


# --- export-onnx


def test_the_exported_file_computes_the_same(run_bench, colours, tmp_path):
    out = tmp_path / "colours.onnx"
    code, output, errors = run_bench("export-onnx", colours, out)
    assert code == 0, errors
    assert "input image: uint8 [batch, 8, 6, 3]" in output
    assert "float32 [batch, 3]" in output
    assert f"{out}: {out.stat().st_size:,} bytes" in output
    assert [path.name for path in tmp_path.iterdir()] == ["colours.onnx"]
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    assert json.loads({p.key: p.value for p in model.metadata_props}["classes"]) == COLOURS
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), np.uint8)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": images})
    expected = load(colours).predict_batch({"image": images})
    np.testing.assert_allclose(scores, next(v for v in expected.values() if v.ndim == 2), rtol=1e-5)


def test_an_existing_file_is_kept_unless_forced(refused, run_bench, colours, tmp_path):
    out = tmp_path / "m.onnx"
    out.write_text("mine")
    assert f"{out} exists; --force replaces it" in refused("export-onnx", colours, out)
    assert out.read_text() == "mine"
    assert run_bench("export-onnx", colours, out, "--force")[0] == 0
    onnx.checker.check_model(onnx.load(out))
    assert "is a folder" in refused("export-onnx", colours, tmp_path)
    assert "nowhere is not a folder" in refused("export-onnx", colours, tmp_path / "nowhere" / "m.onnx")
    assert "no such package" in refused("export-onnx", tmp_path / "gone.mlpackage", tmp_path / "new.onnx")
    assert not (tmp_path / "new.onnx").exists()


def test_weights_too_large_for_one_file_stand_beside_it(refused, run_bench, package, tmp_path, monkeypatch):
    monkeypatch.setattr(coreml_prune_bench.runtimes.portable.export, "_MOST_BYTES_OF_A_FILE", 1000)
    out = tmp_path / "m.onnx"
    code, output, errors = run_bench("export-onnx", package, out)
    assert code == 0, errors
    assert output.count(" bytes") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": image})
    np.testing.assert_allclose(scores, next(iter(load(package).predict_batch({"image": image}).values())), rtol=1e-4)
    out.unlink()
    assert "m.onnx.data exists; --force" in refused("export-onnx", package, out)
    assert not out.exists()


# --- precision


def test_accuracy_names_its_precision(run_bench, package, images):
    found = [
        json.loads(run_bench("accuracy", package, "--data", f"imagefolder:{images}", "--json", *more)[1])[0]
        for more in ((), ("--precision", "float16"))
    ]
    assert [row["precision"] for row in found] == ["float32", "float16"]


def test_records_name_it_too_and_old_ones_stay_readable():
    (record, *_) = read_records(Path(__file__).parents[2] / "results" / "imagenet-sample")
    assert record.runtime is not None
    assert record.runtime.precision == "float32"
