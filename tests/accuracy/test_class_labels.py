"""Labels of packages and classes of data: matched by name, refused by halves, told where nothing matches."""

import itertools
import json

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from PIL import Image

from coreml_prune_bench.accuracy.class_labels import class_order, read_class_map
from coreml_prune_bench.core.errors import DataError, PackageError
from coreml_prune_bench.models.quiet import silenced

CLASSES = ("blue", "golden retriever", "red")


def order(labels, classes=CLASSES, class_map=None, told=None, scores=None):
    count = scores or (len(labels) if labels else len(classes))
    return class_order("m.mlpackage", labels, count, classes, class_map, (told if told is not None else []).append)


def test_every_order_of_the_same_names_is_matched_by_name():
    for labels in itertools.permutations(CLASSES):
        told = []
        found = order(labels, told=told)
        assert [labels[place] for place in found] == list(CLASSES)
        assert told == []


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (("Red", "Golden_Retriever", "BLUE"), CLASSES, [2, 1, 0]),
        (("café", "thé"), ("the\u0301", "cafe\u0301"), [1, 0]),  # as macOS spells a folder
        (("A", "a"), ("a", "A"), [1, 0]),  # told apart by capitals alone
        (("2", "0", "1"), ("0", "1", "2"), [1, 2, 0]),
    ],
)
def test_names_that_people_take_for_the_same_are(labels, classes, expected):
    assert order(labels, classes) == expected


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            ("red", "blue", "green"),
            "no label for 'golden retriever' and labels that are no class of the data ('green')",
        ),
        (
            ("red", "blue"),
            "2 labels, of which 2 are among the data's 3 classes: it has no label for 'golden retriever'",
        ),
        (("red", "blue", "golden retriever", "x"), "it has labels that are no class of the data ('x')"),
        (("red", "red", "blue"), "2 of its classes have the label 'red'"),
        (("a", "b"), "2 labels, of which 0 are among the data's 3 classes"),
    ],
)
def test_names_that_match_by_halves_are_refused(labels, words):
    with pytest.raises(PackageError) as caught:
        order(labels)
    assert words in str(caught.value)
    assert str(caught.value).endswith("--class-map FILE says which label is which class")


def test_names_of_which_none_matches_are_taken_by_position_and_that_is_told():
    told = []
    assert order(("x", "y", "z"), told=told) == [0, 1, 2]
    (line,) = told
    assert "none of its labels ('x', 'y', 'z') is one of the data's classes ('blue', 'golden retriever', 'red')" in line
    assert "--class-map FILE" in line
    assert order(None, told=told) == [0, 1, 2]
    assert len(told) == 1


def test_any_map_is_followed_whether_the_package_has_labels_or_not():
    for labels in itertools.permutations(("r", "g", "b")):
        found = order(labels, class_map={"blue": "b", "golden retriever": "g", "red": "r"})
        assert [labels[place] for place in found] == ["b", "g", "r"]
    assert order(None, class_map={"blue": "2", "golden retriever": "0", "red": "1"}) == [2, 0, 1]


@pytest.mark.parametrize(
    ("labels", "change", "words"),
    [
        (("r", "g", "b"), {"red": None}, "names no label for class 'red'"),
        (("r", "g", "b"), {"rod": "x"}, "has no class 'rod'; did you mean 'red'?"),
        (("r", "g", "b"), {"red": "q"}, "m.mlpackage has 0 times label 'q', expected once"),
        (("r", "r", "g", "b"), {}, "m.mlpackage has 2 times label 'r'"),
        (("r", "g", "b", "x"), {}, "it has 4 scores, the data set has 3 classes"),
        (None, {}, "names a position"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(labels, change, words):
    class_map = {"blue": "b", "golden retriever": "g", "red": "r"} | change
    class_map = {name: label for name, label in class_map.items() if label is not None}
    with pytest.raises(PackageError) as caught:
        order(labels, class_map=class_map)
    assert words in str(caught.value) or (labels is None and "0 times position of a score 'b'" in str(caught.value))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.json", '{"a b": "x", "c": 7}'),
        ("m.csv", "class,label\na b,x\nc,7\n"),
        ("m.csv", '\ufeffclass, label\r\n"a b", x\r\n\r\nc,7\r\n'),
    ],
)
def test_a_map_is_json_or_csv(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_class_map(tmp_path / name) == {"a b": "x", "c": "7"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.json", '{"a": "x", "a": "y"}', "class 'a' 2 times"),
        ("m.csv", "class,label\na,x\nb,x\n", "label 'x' 2 times"),
        ("m.json", "[1]", "it is no object"),
        ("m.json", '["ab"]', "it is no object"),
        ("m.json", '{"a": {"b": "c"}}', "is no label"),
        ("m.json", '{"a": true}', "is no label"),
        ("m.json", "{", "cannot be read"),
        ("m.json", "{}", "is empty"),
        ("m.csv", "", "cannot be read"),
        ("m.csv", "class,label\n", "is empty"),
        ("m.csv", "a,x\nb,y\n", "its first line is 'a,x'"),
        ("m.csv", "class,label\na\n", "cannot be read"),
        ("m.csv", 'class,label\n"a,x\n', "cannot be read"),
        ("none.csv", None, "No such file"),
    ],
)
def test_a_file_that_is_no_map_is_one_line(tmp_path, name, text, words):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_class_map(tmp_path / name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def by_colour(tmp_path_factory):
    """Packages whose three scores are an image's mean red, green and blue, under the labels that are asked for."""
    folder = tmp_path_factory.mktemp("colours")

    def make(*labels):
        path = folder / f"{'-'.join(labels) or 'none'}.mlpackage"
        if not path.exists():

            @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 32, 32))], opset_version=ct.target.iOS17)
            def program(image):
                return mb.reduce_mean(x=image, axes=[2, 3], keep_dims=False)

            options = {"classifier_config": ct.ClassifierConfig(list(labels))} if labels else {}
            with silenced():
                ct.convert(
                    program,
                    inputs=[ct.ImageType("image", (1, 3, 32, 32))],
                    minimum_deployment_target=ct.target.iOS17,
                    skip_model_load=True,
                    **options,
                ).save(str(path))
        return path

    return make


@pytest.fixture
def colours(tmp_path):
    for name, colour in {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}.items():
        for number in range(3):
            place = tmp_path / "colours" / name / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((32, 32, 3), colour, np.uint8)).save(place)
    return f"imagefolder:{tmp_path / 'colours'}"


@pytest.mark.parametrize(
    ("labels", "class_map", "top1"),
    [
        (("red", "green", "blue"), None, 100),  # the other way round than folders are
        (("r", "g", "b"), None, 100 / 3),  # by position: only green is where it is
        (("r", "g", "b"), {"red": "r", "green": "g", "blue": "b"}, 100),
        ((), None, 100 / 3),
        ((), {"red": 0, "green": 1, "blue": 2}, 100),
    ],
)
def test_accuracy_and_compare_take_labels_for_what_they_are(
    run_bench, by_colour, colours, tmp_path, labels, class_map, top1
):
    package = by_colour(*labels)
    options = ["--data", colours, "--json"]
    if class_map:
        (tmp_path / "map.json").write_text(json.dumps(class_map))
        options += ["--class-map", tmp_path / "map.json"]
    code, output, errors = run_bench("accuracy", package, *options)
    assert code == 0, errors
    assert json.loads(output)[0]["top1"] == pytest.approx(top1)
    assert ("are taken for the classes'" in errors) == (labels == ("r", "g", "b") and not class_map)
    code, output, errors = run_bench("compare", package, package, *options)
    assert code == 0, errors
    assert json.loads(output)["top1"] == [pytest.approx(top1 / 100)] * 2


def test_a_label_that_is_no_class_ends_the_command_in_one_line(refused, by_colour, colours):
    line = refused("accuracy", by_colour("red", "green", "bleu"), "--data", colours)
    assert "no label for 'blue' and labels that are no class of the data ('bleu')" in line
