"""Core ML (the stand-in) beside the portable runtime, image by image, and accuracy through Core ML."""

import functools
import json
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import scipy.stats
import torch

from coreml_prune_bench.accuracy import package as package_accuracy
from coreml_prune_bench.accuracy import runtime, watched
from coreml_prune_bench.accuracy.evaluate import evaluate
from coreml_prune_bench.accuracy.parity import Compared, agreement, compare
from coreml_prune_bench.accuracy.units import judge
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.data import iterate, open_data
from coreml_prune_bench.data.halves import open_data_or_part
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.parity import ParityRecord
from coreml_prune_bench.runtimes import coreml, portable
from coreml_prune_bench.runtimes.protocol import loader
from coreml_prune_bench.testing import Script, installed
from tests.runtimes.fake_runtime import load_and
from tests.tiny_network import TINY

REFERENCES = loader("portable"), loader("portable", precision="float16")


@pytest.fixture(scope="module")
def digits_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.mlpackage"
    torch.manual_seed(0)
    to_coreml(untrained_model(TINY, 10).eval(), 32).save(str(path))
    return path


@pytest.fixture(scope="module")
def classifier_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ends in a label and a dictionary; its classes are in another order than the data's."""
    path = tmp_path_factory.mktemp("classifier") / "classifier.mlpackage"
    torch.manual_seed(0)
    network = torch.nn.Sequential(untrained_model(TINY, 10).eval(), torch.nn.Softmax(dim=1)).eval()
    model = ct.convert(
        torch.jit.trace(network, torch.rand(1, 3, 32, 32)),
        inputs=[ct.ImageType("image", shape=(1, 3, 32, 32), scale=1 / 255)],
        classifier_config=ct.ClassifierConfig(list("9876543210")),
        minimum_deployment_target=ct.target.iOS17,
    )
    model.save(str(path))
    return path


def test_accuracy_through_core_ml_is_the_portable_runtimes(digits_package: Path, classifier_package: Path) -> None:
    """The stand-in computes with the portable runtime: tested is the way of images and results through coremltools."""
    split = open_data("digits").val
    with installed(Script()):
        through, _ = evaluate([digits_package, classifier_package], split, load=loader("coreml"))
    direct, _ = evaluate([digits_package, classifier_package], split)
    for ours, expected in zip(through, direct, strict=True):
        assert ours.labels == expected.labels
        assert np.mean(np.array(ours.top5)[:, 0] == np.array(expected.top5)[:, 0]) > 0.97


def test_results_of_a_batch_are_stacked_alike(digits_package: Path, classifier_package: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    for package in (digits_package, classifier_package):
        with installed(Script()):
            core_ml = coreml.Model(package)
            ours = core_ml.predict_batch({"image": images})
        reference = portable.load(package)
        expected = reference.predict_batch({"image": images})
        assert core_ml.classes == reference.classes
        assert set(ours) == set(expected)
        for name, value in expected.items():
            assert ours[name].shape == value.shape
            if value.dtype.kind == "f":
                np.testing.assert_allclose(ours[name], value, rtol=1e-2, atol=1e-4)
            else:
                assert ours[name].tolist() == value.tolist()


def test_what_is_compared_by_image(digits_package: Path) -> None:
    split = open_data_or_part("digits#50").val
    with installed(Script()):
        (found,) = compare(digits_package, split, [loader("coreml")], REFERENCES)
    assert found.labels == tuple(split.labels.tolist())
    batch = next(iterate(split, 32, batch_size=50))
    scores, rounded = (
        portable.load(digits_package, precision=precision).predict_batch({"image": batch.images})["logits"]
        for precision in ("float32", "float16")
    )
    assert found.top1[1] == tuple(scores.argmax(axis=1).tolist())
    assert found.score_range == pytest.approx(np.ptp(scores, axis=1), rel=1e-5)
    assert found.rounding_error == pytest.approx(np.abs(rounded - scores).max(axis=1), rel=0.2, abs=1e-4)
    assert max(found.largest_error) < 0.05 * max(found.score_range)


def test_agreement_by_hand() -> None:
    compared = Compared(
        labels=(0, 1, 2, 3),
        top1=((0, 1, 2, 0), (0, 1, 0, 3)),
        largest_error=(0.1, 0.2, 0.3, 0.4),
        score_range=(1.0, 2.0, 3.0, 0.0),
    )
    found = agreement(compared)
    assert found.top1_agreement == 0.5
    assert found.accuracies == (0.75, 0.75)
    # Paired differences 0, 0, 1, -1: no difference, with the standard deviation sqrt(2/3) over 2.
    assert (found.difference, found.difference_stderr) == (0, pytest.approx((2 / 3) ** 0.5 / 2))
    assert (found.mean_error, found.largest_error) == (pytest.approx(0.25), 0.4)
    assert found.mean_relative_error == pytest.approx((0.1 + 0.1 + 0.1 + 0) / 4)


@pytest.fixture
def on_a_mac(monkeypatch: pytest.MonkeyPatch):
    """The command line on the stand-in, its facts from a recorded machine."""
    from coreml_prune_bench.latency import machines
    from tests.latency.macos import tool_of

    here = functools.partial(machines.this_machine, tool=tool_of("m2pro-macos15"), system="darwin")
    monkeypatch.setattr(machines, "this_machine", here)
    for module in (watched, runtime, package_accuracy):  # in this process, where the stand-in is
        monkeypatch.setattr(module, "watched_loader", loader)
    with installed(Script()):
        yield


def test_the_command(run_bench, on_a_mac, digits_package: Path, tmp_path: Path) -> None:
    arguments = ("parity", digits_package, "--data", "digits", "--limit", 100, "--results", tmp_path)
    code, output, errors = run_bench(*arguments, "--compute-units", "cpu_only")
    assert code == 0, errors
    assert "Apple M2 Pro" in output
    assert "| cpu_only | right " in " ".join(output.split())
    assert "100 images find a unit that is off on" in output
    (path,) = (tmp_path / "parity").glob("*.json")
    record = ParityRecord.model_validate_json(path.read_text())
    assert len(record.labels) == 100
    assert [runtime.name for runtime in record.runtimes] == ["coreml", "portable"]
    assert record.runtimes[0].compute_units == "cpu_only"
    found = json.loads(run_bench(*arguments, "--json")[1])
    assert [one["compute_units"] for one in found] == ["cpu_only", "cpu_and_gpu", "cpu_and_ne", "all"]
    assert {one["images"] for one in found} == {100}
    assert min(one["top1_agreement"] for one in found) > 0.9
    assert len(list((tmp_path / "parity").glob("*.json"))) == 4


def test_too_little_agreement_is_exit_code_1(
    run_bench, on_a_mac, digits_package: Path, tmp_path: Path, monkeypatch
) -> None:
    def other_images(self, inputs):
        return original(self, {name: 255 - value for name, value in inputs.items()})

    original = coreml.Model.predict_batch
    monkeypatch.setattr(coreml.Model, "predict_batch", other_images)
    arguments = ("parity", digits_package, "--data", "digits", "--limit", 100, "--results", tmp_path)
    code, _, errors = run_bench(*arguments, "--min-agreement", 99, "--compute-units", "all")
    assert code == 1
    assert "expected 99 % or more" in errors
    assert "all: wrong: 100 of 100 images are further off than rounding" in errors


def test_a_wrong_neural_engine_is_told_from_right_units(run_bench, on_a_mac, tmp_path: Path) -> None:
    """MobileNetV3-small as it is reported: 0.2 off on the Neural Engine, which hardly changes a best class."""
    package = tmp_path / "v3.mlpackage"
    torch.manual_seed(0)
    to_coreml(untrained_model(get_network("mobilenet_v3_small"), 10).eval(), 32).save(str(package))
    arguments = ("parity", package, "--data", "digits", "--limit", 200, "--results", tmp_path)
    with installed(Script(error={"CPU_AND_NE": 0.2})):
        code, output, errors = run_bench(*arguments, "--json")
    assert (code, errors.count("wrong")) == (1, 1)
    assert {one["compute_units"]: (one["verdict"], one["off"]) for one in json.loads(output)} == {
        "cpu_only": ("right", 0), "cpu_and_gpu": ("right", 0), "cpu_and_ne": ("wrong", 200), "all": ("right", 0)
    }  # fmt: skip
    least = int(scipy.stats.binom.isf(0.05 / 4, 200, 0.05)) + 1  # a quarter of 5 % for each of four
    detectable = json.loads(output)[0]["detectable"]
    assert scipy.stats.binom.sf(least - 1, 200, detectable) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(
    ("off", "images", "verdict"),
    [(0, 200, "right"), (2, 200, "right"), (9, 200, "cannot tell"), (20, 200, "wrong"), (0, 20, "cannot tell")],
)
def test_verdicts_are_those_of_the_exact_test(off: int, images: int, verdict: str) -> None:
    errors = [1.0] * off + [0.1] * (images - off)
    compared = Compared((0,) * images, ((0,) * images,) * 2, tuple(errors), (1.0,) * images, (0.1,) * images)
    judged = judge(compared)
    assert judged is not None
    assert (judged.off, judged.images, judged.verdict) == (off, images, verdict)
    assert judged.p_value == pytest.approx(scipy.stats.binomtest(off, images, 0.05, alternative="greater").pvalue)
    if judged.detectable:
        least = int(scipy.stats.binom.isf(0.05, images, 0.05)) + 1
        assert scipy.stats.binom.sf(least - 1, images, judged.detectable) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(("runtime", "times", "off"), [("coreml", 5, 30), ("coreai", 5, 0), ("coreai", 33, 30)])
def test_core_ai_may_be_further_off_since_it_adds_up_in_float16(runtime: str, times: float, off: int) -> None:
    compared = Compared((0,) * 30, ((0,) * 30,) * 2, (0.1 * times,) * 30, (1.0,) * 30, (0.1,) * 30)
    judged = judge(compared, runtime=runtime)
    assert judged is not None
    assert judged.off == off


def test_scores_that_are_not_numbers_are_off() -> None:
    errors = (float("nan"),) * 30
    compared = Compared((0,) * 30, ((0,) * 30,) * 2, errors, (1.0,) * 30, (0.1,) * 30)
    judged = judge(compared)
    assert judged is not None
    assert (judged.off, judged.verdict) == (30, "wrong")


def test_a_record_of_before_says_nothing_of_units() -> None:
    assert judge(Compared((0,), ((0,), (0,)), (0.1,), (1.0,))) is None


def test_accuracy_of_packages_through_core_ml(run_bench, on_a_mac, digits_package: Path) -> None:
    arguments = ("accuracy", digits_package, "--data", "digits", "--json")
    (direct,) = json.loads(run_bench(*arguments)[1])
    (through,) = json.loads(run_bench(*arguments, "--runtime", "coreml", "--compute-units", "cpu_and_ne")[1])
    assert (through["runtime"], through["compute_units"], through["precision"]) == ("coreml", "cpu_and_ne", None)
    assert through["top1"] == pytest.approx(direct["top1"], abs=2)
    code, _, errors = run_bench(*arguments, "--runtime", "coreml", "--compute-units", "ane")
    assert code == 2
    assert "expected one of all, cpu_and_ne" in errors


def test_a_suite_through_core_ml(run_bench, on_a_mac, tmp_path: Path) -> None:
    suite = tmp_path / "own.toml"
    suite.write_text(
        'description = "d"\nmodels = ["tiny"]\nweights = "none"\ntraining = {epochs = 1}\n[data]\ndefault = "digits"\n'
        '[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\n'
    )
    command = ("run", "--suite", suite, "--results", tmp_path / "results", "--format", "json")
    code, output, errors = run_bench(*command, "--runtime", "coreml")
    assert code == 0, errors
    assert {(row["runtime"], row["compute_units"]) for row in json.loads(output)} == {("coreml", "all")}
    assert "0 of 2 cells measured now" in run_bench(*command, "--runtime", "coreml")[2]
    # Other compute units, and the portable runtime, are other measurements of the same packages.
    assert "2 of 2 cells measured now" in run_bench(*command, "--runtime", "coreml", "--compute-units", "cpu_only")[2]
    assert "2 of 2 cells measured now" in run_bench(*command)[2]
    assert len(list((tmp_path / "results" / "records").glob("*.json"))) == 6


def test_without_core_ml_it_says_so(refused, digits_package: Path) -> None:
    assert "Core ML is not on this machine (Linux)" in refused("parity", digits_package, "--data", "digits")


# --- the process that Core ML predicts in


def test_a_watched_model_is_the_model(digits_package: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    model = watched.WatchedModel(functools.partial(load_and, "predict"), digits_package)
    expected = portable.load(digits_package).predict_batch({"image": images})
    assert (model.output_names, model.classes) == (("logits",), None)
    np.testing.assert_allclose(model.predict_batch({"image": images})["logits"], expected["logits"], rtol=1e-5)


@pytest.mark.parametrize(("way", "message"), [("die", "signal SIGSEGV"), ("hang", "no sign of life for 2 s")])
def test_one_that_dies_or_hangs_is_an_error_of_one_line(digits_package: Path, way: str, message: str) -> None:
    model = watched.WatchedModel(functools.partial(load_and, way), digits_package, limit_s=2)
    with pytest.raises(PackageError, match=message):
        model.predict_batch({"image": np.zeros((1, 32, 32, 3), np.uint8)})


def test_what_is_printed_there_is_not_in_a_table(digits_package: Path, capfd: pytest.CaptureFixture[str]) -> None:
    watched.WatchedModel(functools.partial(load_and, "print"), digits_package)
    assert capfd.readouterr().out == ""
