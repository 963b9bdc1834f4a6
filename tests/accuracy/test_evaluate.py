"""Accuracy of a package: worked out by hand on a program whose answer is known, and refusals."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import coremltools as ct
import numpy as np
import PIL.Image
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from coreml_prune_bench.accuracy.evaluate import Classifier, _batch_size, _highest, evaluate
from coreml_prune_bench.core.errors import DataError, PackageError
from coreml_prune_bench.data import Split, open_data
from coreml_prune_bench.data import images as decoding
from coreml_prune_bench.models.quiet import silenced

ROOT = Path(__file__).parents[2]

# Seven classes by brightness: class k scores highest where the mean of an image is nearest to 40 * k.
CENTRES = 40.0 * np.arange(7, dtype=np.float32)


def save(path, program, inputs, **options):
    target = ct.target.iOS17
    with silenced():
        model = ct.convert(program, inputs=inputs, minimum_deployment_target=target, skip_model_load=True, **options)
    model.save(str(path))
    return path


@pytest.fixture(scope="module")
def brightness(tmp_path_factory):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 32, 32))], opset_version=ct.target.iOS17)
    def program(image):
        mean = mb.reduce_mean(x=image, axes=[1, 2, 3], keep_dims=False)  # [1]
        distance = mb.abs(x=mb.sub(x=mb.reshape(x=mean, shape=[1, 1]), y=CENTRES[None]))  # [1, 7]
        return mb.mul(x=distance, y=np.float32(-1))

    path = tmp_path_factory.mktemp("package") / "brightness.mlpackage"
    return save(path, program, [ct.ImageType("image", (1, 3, 32, 32))])


@pytest.fixture
def split(tmp_path):
    """Grey images: labels 0, 2, 6 right in first place; label 1 second best; label 5 sixth best."""
    for label, grey in ((0, 3), (2, 82), (6, 239), (1, 61), (5, 2)):
        folder = tmp_path / "images" / str(label)
        folder.mkdir(parents=True)
        PIL.Image.new("RGB", (32, 32), (grey,) * 3).save(folder / "x.png")
    (tmp_path / "images" / "classes.txt").write_text("\n".join("0123456"))
    return open_data(f"imagefolder:{tmp_path / 'images'}").val


def test_top1_and_top5_worked_out_by_hand(brightness, split):
    (predictions,), skipped = evaluate([brightness], split)
    assert skipped == ()
    assert predictions.labels == (0, 1, 2, 5, 6)
    assert [row[0] for row in predictions.top5] == [0, 2, 2, 0, 6]
    assert predictions.top5[1] == (2, 1, 3, 0, 4)  # 61 lies 19 from 80, 21 from 40, 59 from 120, 61 from 0, 99 from 160
    assert predictions.top1 == pytest.approx(3 / 5)
    assert predictions.top5_accuracy == pytest.approx(4 / 5)


def test_a_package_that_ends_in_a_label_is_measured_by_its_probabilities_and_its_names(tmp_path, split):
    """The same scores under the same names, stored from the last class to the first."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 32, 32))], opset_version=ct.target.iOS17)
    def program(image):
        mean = mb.reduce_mean(x=image, axes=[1, 2, 3], keep_dims=False)
        distance = mb.abs(x=mb.sub(x=mb.reshape(x=mean, shape=[1, 1]), y=CENTRES[None, ::-1].copy()))
        return mb.mul(x=distance, y=np.float32(-1))

    labels = ct.ClassifierConfig(list("6543210"))
    image = [ct.ImageType("image", (1, 3, 32, 32))]
    path = save(tmp_path / "labels.mlpackage", program, image, classifier_config=labels)
    (predictions,), _ = evaluate([path], split)
    assert [row[0] for row in predictions.top5] == [0, 2, 2, 0, 6]
    assert predictions.top5[1] == (2, 1, 3, 0, 4)


def test_of_equal_scores_the_lower_class_comes_first(brightness, tmp_path):
    (tmp_path / "0").mkdir()
    PIL.Image.new("RGB", (32, 32), (20,) * 3).save(tmp_path / "0" / "x.png")  # as far from 0 as from 40
    (tmp_path / "classes.txt").write_text("\n".join("0123456"))
    (predictions,), _ = evaluate([brightness], open_data(f"imagefolder:{tmp_path}").val)
    assert predictions.top5[0][:2] == (0, 1)


def test_an_array_input_is_refused_for_its_preparation_is_unknown(tmp_path, split):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 7), dtype=types.fp32)], opset_version=ct.target.iOS17)
    def program(x):
        return mb.relu(x=x)

    with pytest.raises(PackageError, match=r"has shape \[1, 7\], which is not an image of 1 or 3 channels"):
        evaluate([save(tmp_path / "x.mlpackage", program, None)], split)


def test_two_outputs_are_refused(tmp_path, split):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 32, 32))], opset_version=ct.target.iOS17)
    def program(image):
        return mb.relu(x=image), mb.abs(x=image)

    with pytest.raises(PackageError, match="it has several outputs; --output says which one: relu_0, abs_0"):
        evaluate([save(tmp_path / "x.mlpackage", program, [ct.ImageType("image", (1, 3, 32, 32))])], split)


def test_scores_that_are_not_finite_are_refused(tmp_path, split):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 32, 32))], opset_version=ct.target.iOS17)
    def program(image):
        mean = mb.reshape(x=mb.reduce_mean(x=image, axes=[1, 2, 3], keep_dims=False), shape=[1, 1])
        return mb.log(x=mb.sub(x=mb.mul(x=mean, y=np.zeros((1, 7), np.float32)), y=np.float32(1)))

    with pytest.raises(PackageError, match="not finite"):
        evaluate([save(tmp_path / "x.mlpackage", program, [ct.ImageType("image", (1, 3, 32, 32))])], split)


# --- several packages, one pass


@pytest.fixture(scope="module")
def darkness(tmp_path_factory):
    """`brightness` turned round, and for images of half the side."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 16, 16))], opset_version=ct.target.iOS17)
    def program(image):
        mean = mb.reduce_mean(x=image, axes=[1, 2, 3], keep_dims=False)
        return mb.abs(x=mb.sub(x=mb.reshape(x=mean, shape=[1, 1]), y=CENTRES[None]))

    path = tmp_path_factory.mktemp("package") / "darkness.mlpackage"
    return save(path, program, [ct.ImageType("image", (1, 3, 16, 16))])


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """Prepared images are kept, however few."""
    monkeypatch.setattr("coreml_prune_bench.data.image_cache.LEAST_BYTES", 0)
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def decoded(monkeypatch):
    """The positions of the images that were decoded."""
    positions = []
    prepared = decoding._prepared
    monkeypatch.setattr(decoding, "_prepared", lambda *of: positions.append(of[1]) or prepared(*of))
    return positions


@pytest.mark.parametrize("image_cache", [False, True])
def test_several_packages_get_what_each_gets_alone(brightness, darkness, split, kept, image_cache):
    packages = [brightness, darkness, brightness]
    together, _ = evaluate(packages, split, image_cache=image_cache)
    assert together == [evaluate([package], split, image_cache=False)[0][0] for package in packages]
    assert together[0] != together[1]


def test_several_packages_share_the_decoded_images(brightness, split, decoded):
    evaluate([brightness] * 3, split, image_cache=False)
    assert sorted(decoded) == [0, 1, 2, 3, 4]


def test_the_next_pass_reads_the_images_that_were_kept(brightness, split, kept, decoded):
    first = evaluate([brightness], split)
    assert sorted(decoded) == [0, 1, 2, 3, 4]
    assert evaluate([brightness], split) == first == evaluate([brightness], split, image_cache=False)
    assert len(decoded) == 10


def test_a_package_of_other_classes_is_refused_before_an_image_is_decoded(brightness, images, kept, decoded):
    with pytest.raises(PackageError, match=r"its output has shape \[7\], the data set has 3 classes"):
        evaluate([brightness], open_data(f"imagefolder:{images}").val)
    assert decoded == []


def test_a_bad_image_ends_it_or_is_left_out_for_every_package(brightness, darkness, split, kept):
    next(path for path in split.source.root.glob("2/*.png")).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot decode val/2/x\.png"):
        evaluate([brightness, darkness], split)
    for image_cache in (True, False):
        found, skipped = evaluate([brightness, darkness], split, skip_bad_images=True, image_cache=image_cache)
        assert skipped == ("val/2/x.png",)
        assert [predictions.labels for predictions in found] == [(0, 1, 5, 6)] * 2


@pytest.mark.parametrize("image_cache", [False, True])
def test_parts_of_the_images_are_together_the_whole(brightness, darkness, tmp_path, kept, image_cache):
    for number in range(130):
        folder = tmp_path / "many" / str(number % 7)
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (32, 32), (number * 2 % 256,) * 3).save(folder / f"{number:03}.png")
    split = open_data(f"imagefolder:{tmp_path / 'many'}").val
    for place in (3, 128, 129):  # all of the last part
        (split.source.root / split.ids[place].partition("/")[2]).write_bytes(b"no image")
    whole, bad = evaluate([brightness, darkness], split, skip_bad_images=True, image_cache=False)
    found, skipped, told = [], (), []
    for part in (range(64), range(64, 128), range(128, 130)):
        seen = [brightness, darkness]
        here, more = evaluate(
            seen, split, skip_bad_images=True, image_cache=image_cache, part=part, tell=told.append,
            progress=lambda what, done, total, part=part: told.append(what.startswith("reading") or total == len(part)),
        )  # fmt: skip
        found.append(here)
        skipped += more
    assert found.pop() == []  # nothing of it could be evaluated
    assert skipped == bad
    assert len(bad) == 3
    for one, *parts in zip(whole, *found, strict=True):
        assert one.labels == parts[0].labels + parts[1].labels
        assert one.top5 == parts[0].top5 + parts[1].top5
    assert all(told)


def test_images_that_are_larger_than_anybody_decodes(tmp_path, split):
    """Of images that are large, a batch has fewer; of 4,096 pixels a side, one."""
    assert [_batch_size(size) for size in (32, 224, 724, 725, 1024, 4096)] == [32, 32, 32, 16, 16, 1]

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 5000, 5000))], opset_version=ct.target.iOS17)
    def program(image):
        return mb.reduce_mean(x=image, axes=[2, 3], keep_dims=False)

    package = save(tmp_path / "m.mlpackage", program, [ct.ImageType("image", (1, 3, 5000, 5000))])
    with pytest.raises(PackageError, match="takes images of 5,000 pixels a side, expected at most 4,096"):
        evaluate([package], split)


# --- on the command line


def test_accuracy_on_the_command_line(run_bench, brightness, darkness, split, kept):
    arguments = ("accuracy", brightness, darkness, "--data", f"imagefolder:{split.source.root}", "--json")
    code, output, errors = run_bench(*arguments)
    assert code == 0, errors
    assert [(row["images"], row["top1"]) for row in json.loads(output)] == [(5, 60.0), (5, 0.0)]
    assert errors.count("preparing 5 images once") == 2  # at two sizes
    assert errors.count("is not shown to be above chance") == 2
    for options in ([], ["--no-image-cache"]):
        code, again, errors = run_bench(*arguments, *options)
        assert (code, again, "preparing" in errors) == (0, output, False)


def test_accuracy_within_a_time_limit(run_bench, refused, brightness, split, kept):
    arguments = ("accuracy", brightness, "--data", f"imagefolder:{split.source.root}", "--json")
    assert refused(*arguments, "--time-limit", 0.1) == "error: not done after 0.1 s (--time-limit), and ended"
    code, output, _ = run_bench(*arguments, "--time-limit", 600)
    assert (code, json.loads(output)[0]["top1"]) == (0, 60.0)


def test_a_corrupted_image_on_the_command_line(run_bench, brightness, split, kept):
    next(path for path in split.source.root.glob("2/*.png")).write_bytes(b"no image")
    arguments = ("accuracy", brightness, "--data", f"imagefolder:{split.source.root}", "--json")
    code, output, errors = run_bench(*arguments)
    assert (code, output) == (2, "")
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == [
        "error: cannot decode val/2/x.png: not an image in a known format; remove it or use --skip-bad-images"
    ]
    code, output, _ = run_bench(*arguments, "--skip-bad-images")
    assert (code, json.loads(output)[0]["skipped_images"]) == (0, 1)


def test_the_cells_of_a_run_share_the_images_that_were_kept(run_bench, images, kept, tmp_path):
    suite = tmp_path / "own.toml"
    suite.write_text(
        'description = "d"\nmodels = ["tiny"]\nweights = "none"\ntraining = {epochs = 1, batch_size = 4}\n'
        '[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\n'
    )
    arguments = ("run", "--suite", suite, "--data", f"imagefolder:{images}", "--format", "json", "--results")
    code, output, errors = run_bench(*arguments, tmp_path / "kept")
    assert code == 0, errors
    assert errors.count("preparing 12 images once") == 1
    shutil.copytree(tmp_path / "kept" / "artifacts", tmp_path / "decoded" / "artifacts")
    code, again, errors = run_bench(*arguments, tmp_path / "decoded", "--no-image-cache")
    assert (code, again) == (0, output)
    assert "preparing" not in errors


@pytest.mark.parametrize("slow", ["images", "predictions"])
def test_progress_says_what_limits_it(slow, brightness, tmp_path, monkeypatch):
    """One takes ten times what the other takes."""
    wait_s = {"images": 0.001, "predictions": 0.001} | {slow: 0.01}

    class Slow:
        def open(self, index):
            time.sleep(wait_s["images"])
            return PIL.Image.new("RGB", (32, 32))

        def digests(self, progress):
            return ["0" * 64] * 128

    monkeypatch.setattr(Classifier, "see", lambda self, images: time.sleep(wait_s["predictions"] * len(images)))
    monkeypatch.setattr(Classifier, "top5", lambda self: ((0,),) * 128)
    monkeypatch.setattr(decoding, "default_workers", lambda: 1)
    images = Split("val", tuple("0123456"), np.zeros(128, np.int64), tuple(map(str, range(128))), Slow())
    told: list[str] = []
    evaluate([brightness], images, image_cache=False, progress=lambda what, done, total: told.append(what))
    assert told[-1] == f"evaluating, limited by {slow}"


# --- memory

_MEASURE = """
import sys
import numpy as np
import PIL.Image
from coreml_prune_bench.accuracy.evaluate import _batch_size, _highest, evaluate
from coreml_prune_bench.data import Split
from tests.benchmarks.load_once import peak_bytes

class Repeated:
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
    def open(self, index):
        return self.image
    def digests(self, progress):
        return ["0" * 64] * int(sys.argv[2])

count = int(sys.argv[2])
split = Split("val", tuple("0123456"), np.zeros(count, np.int64), tuple(map(str, range(count))), Repeated())
for _ in range(2):  # cold, then warm
    ((predictions,), _) = evaluate([sys.argv[1]], split)
    assert len(predictions.labels) == count
print(peak_bytes())
"""


@pytest.fixture(scope="module")
def brightness_224(tmp_path_factory):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 224, 224))], opset_version=ct.target.iOS17)
    def program(image):
        mean = mb.reduce_mean(x=image, axes=[1, 2, 3], keep_dims=False)
        return mb.abs(x=mb.sub(x=mb.reshape(x=mean, shape=[1, 1]), y=CENTRES[None]))

    path = tmp_path_factory.mktemp("package") / "brightness.mlpackage"
    return save(path, program, [ct.ImageType("image", (1, 3, 224, 224))])


@pytest.mark.parametrize("classes", [1, 4, 5, 6, 1000])
@pytest.mark.parametrize("levels", [2, 1_000_000])  # many equal scores, and hardly any
def test_the_highest_classes_are_those_of_a_stable_sort(classes, levels):
    scores = np.random.default_rng(classes).integers(0, levels, (32, classes)).astype(np.float32)
    expected = [sorted(range(classes), key=lambda c, row=row: (-row[c], c))[:5] for row in scores]
    assert _highest(scores, 5).tolist() == expected


def peak_of(package, count, cache):
    """The most memory, in bytes, of a process that evaluates so many images at 224x224, cold and then warm."""
    command = [sys.executable, "-c", _MEASURE, str(package), str(count)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "COREML_BENCH_CACHE": str(cache)}, stdout=subprocess.PIPE, check=True
    )
    return int(done.stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data_set(brightness_224, tmp_path):
    """50,000 images take 7.5 GB on disk, which must be free."""
    few, many = (peak_of(brightness_224, count, tmp_path / str(count)) for count in (500, 50_000))
    logging.getLogger(__name__).info(
        "peak memory: %d images %.0f MB, %d images %.0f MB", 500, few / 1e6, 50_000, many / 1e6
    )
    assert many < 2 << 30
    assert many < few + (200 << 20)
