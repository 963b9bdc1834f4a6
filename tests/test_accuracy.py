"""Accuracy of a package: worked out by hand on a program whose answer is known, and refusals."""

import coremltools as ct
import numpy as np
import PIL.Image
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from harness.accuracy import evaluate
from harness.data import open_data
from harness.errors import PackageError
from harness.quiet import silenced

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
    predictions, skipped = evaluate(brightness, split)
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
    predictions, _ = evaluate(path, split)
    assert [row[0] for row in predictions.top5] == [0, 2, 2, 0, 6]
    assert predictions.top5[1] == (2, 1, 3, 0, 4)


def test_of_equal_scores_the_lower_class_comes_first(brightness, tmp_path):
    (tmp_path / "0").mkdir()
    PIL.Image.new("RGB", (32, 32), (20,) * 3).save(tmp_path / "0" / "x.png")  # as far from 0 as from 40
    (tmp_path / "classes.txt").write_text("\n".join("0123456"))
    predictions, _ = evaluate(brightness, open_data(f"imagefolder:{tmp_path}").val)
    assert predictions.top5[0][:2] == (0, 1)


def test_an_array_input_is_refused_for_its_preparation_is_unknown(tmp_path, split):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 7), dtype=types.fp32)], opset_version=ct.target.iOS17)
    def program(x):
        return mb.relu(x=x)

    with pytest.raises(PackageError, match="is an array, so how images are to be prepared for it is not known"):
        evaluate(save(tmp_path / "x.mlpackage", program, None), split)


def test_two_outputs_are_refused(tmp_path, split):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 32, 32))], opset_version=ct.target.iOS17)
    def program(image):
        return mb.relu(x=image), mb.abs(x=image)

    with pytest.raises(PackageError, match="expected a classifier with one output, found 2"):
        evaluate(save(tmp_path / "x.mlpackage", program, [ct.ImageType("image", (1, 3, 32, 32))]), split)


def test_scores_that_are_not_finite_are_refused(tmp_path, split):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 32, 32))], opset_version=ct.target.iOS17)
    def program(image):
        mean = mb.reshape(x=mb.reduce_mean(x=image, axes=[1, 2, 3], keep_dims=False), shape=[1, 1])
        return mb.log(x=mb.sub(x=mb.mul(x=mean, y=np.zeros((1, 7), np.float32)), y=np.float32(1)))

    with pytest.raises(PackageError, match="not finite"):
        evaluate(save(tmp_path / "x.mlpackage", program, [ct.ImageType("image", (1, 3, 32, 32))]), split)
