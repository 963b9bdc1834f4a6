"""Apple's runtime for a `.aimodel`, on the processor, beside values by torch and beside the portable runtime."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

coreai_runtime = pytest.importorskip("coreai.runtime", reason="coreai-core is not installed")

from coreml_prune_bench.accuracy.watched import watched_loader  # noqa: E402
from coreml_prune_bench.aimodel.reader import DEFINED, METADATA, OWN_METADATA  # noqa: E402
from coreml_prune_bench.core.errors import BenchError, PackageError  # noqa: E402
from coreml_prune_bench.records.accuracy import read_records  # noqa: E402
from coreml_prune_bench.records.latency import read_latency_records  # noqa: E402
from coreml_prune_bench.records.parity import read_parity_records  # noqa: E402
from coreml_prune_bench.runtimes import coreai, portable  # noqa: E402
from coreml_prune_bench.runtimes.protocol import loader  # noqa: E402
from tests.aimodel.packages import classifier, from_text, graph  # noqa: E402

CLASSES = 3
_RUNTIMES = ("portable", "coreai")


@pytest.fixture(scope="module")
def weights() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(3)
    linear = draw.normal(size=(8, CLASSES)) * (draw.random((8, CLASSES)) < 0.6)
    return draw.normal(size=(8, 3, 3, 3)).astype(np.float32), linear.astype(np.float32)


@pytest.fixture(scope="module")
def tiny(weights: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("tiny") / "tiny.aimodel", *weights)


@pytest.fixture(scope="module")
def half(weights: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("half") / "half.aimodel", *weights, "float16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes, six in all."""
    root, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(1)
    for split in ("train", "val"):
        for name in "abc":
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def by_torch(images: np.ndarray, convolution: np.ndarray, linear: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    return (torch.relu(torch.conv2d(x, torch.from_numpy(convolution))).mean((2, 3)) @ torch.from_numpy(linear)).numpy()


def test_images_are_given_as_the_program_takes_them(
    tiny: Path, half: Path, weights: tuple[np.ndarray, np.ndarray], draw: np.random.Generator
) -> None:
    images = draw.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    expected = by_torch(images, *weights)
    for package, tolerance in ((tiny, 1e-5), (half, 2e-2)):
        model = coreai.Model(package)
        found = model.predict_batch({"x": images})["y"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
        ours = portable.load(package, cache=False)
        assert (model.inputs, model.outputs, model.output_names) == (ours.inputs, ours.outputs, ours.output_names)


def test_arrays_with_and_without_a_leading_one(tmp_path: Path, draw: np.random.Generator) -> None:
    for type_, shape in (("tensor<1x4xf32>", (3, 4)), ("tensor<2x4xf32>", (3, 2, 4)), ("tensor<4xf16>", (3, 4))):
        body = f"%y = coreai.relu %x : ({type_}) -> {type_}"
        package = from_text(tmp_path / f"{len(shape)}{type_[-4:-1]}.aimodel", graph(body, x=type_, y=type_))
        x = draw.normal(size=shape).astype(np.float32)
        found = coreai.Model(package).predict_batch({"x": x})["y"]
        assert found.shape == shape
        np.testing.assert_allclose(found, np.maximum(x, 0), atol=1e-3)


def test_a_process_of_its_own(tiny: Path, draw: np.random.Generator) -> None:
    """One that serves every batch; what it cannot load is told in a line."""
    images = draw.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    model = watched_loader("coreai")(tiny)
    expected = portable.load(tiny, cache=False).predict_batch({"x": images})["y"]
    for part in (images, images[1:]):
        np.testing.assert_allclose(model.predict_batch({"x": part})["y"], expected[-len(part) :], atol=1e-5)


def test_what_is_no_aimodel_and_units_that_are_not_here(tiny: Path, package: Path) -> None:
    with pytest.raises(PackageError, match=r"Core AI runs a \.aimodel, which this is not"):
        coreai.Model(package)
    with pytest.raises(BenchError, match="Core AI has the processor alone here, cpu_only"):
        loader("coreai", compute_units="cpu_and_ne")
    with pytest.raises(BenchError, match="expected one of all, cpu_and_ne"):
        loader("coreai", compute_units="gpu")


@pytest.mark.parametrize("units", ["all", "cpu_only", "cpu_and_gpu", "cpu_and_ne"])
def test_on_a_mac_units_are_specialized_for(units: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for the two classes that Linux's package has not."""

    class Options:
        is_supported = staticmethod(lambda: True)
        default = staticmethod(lambda: "all")
        cpu_only = staticmethod(lambda: "cpu_only")
        from_preferred_compute_unit_kind = staticmethod(lambda kind: kind)

    class Kinds:
        gpu = staticmethod(lambda: "cpu_and_gpu")
        neural_engine = staticmethod(lambda: "cpu_and_ne")

    monkeypatch.setattr(coreai_runtime, "SpecializationOptions", Options)
    monkeypatch.setattr(coreai_runtime, "ComputeUnitKind", Kinds, raising=False)
    assert coreai.units_here(units) == units
    assert coreai._specialized(units) == units


def test_parity_and_accuracy_as_commands(run_bench, folder: Path, tiny: Path, half: Path, tmp_path: Path) -> None:
    data = ["--data", f"imagefolder:{folder}", "--json"]
    for package in (tiny, half):
        code, output, errors = run_bench("parity", package, "--against", "apple", "--results", tmp_path, *data)
        assert code == 0, errors
        (row,) = json.loads(output)
        assert row["compute_units"] == "cpu_only"
        assert row["images"] == 6
        assert row["top1_agreement"] == 1
        assert row["verdict"] != "wrong"
        assert row["largest_error"] < 0.05
    records = read_parity_records(tmp_path)
    assert [record.runtimes[0].name for record in records] == ["coreai", "coreai"]
    assert records[0].runtimes[0].version.startswith("coreai-core ")
    found = {name: json.loads(run_bench("accuracy", tiny, "--runtime", name, *data)[1])[0] for name in _RUNTIMES}
    assert found["coreai"]["top1"] == found["portable"]["top1"]
    assert found["coreai"]["compute_units"] == "cpu_only"


def test_records_of_either_runtime(run_bench, refused, folder: Path, tiny: Path, tmp_path: Path) -> None:
    """Also in a process of its own, which `--time-limit` ends: Apple's runtime is in another one below it."""
    command = ("accuracy", tiny, "--data", f"imagefolder:{folder}", "--results", tmp_path, "--json")
    for runtime in _RUNTIMES:
        code, _, errors = run_bench(*command, "--runtime", runtime, "--time-limit", 300)
        assert code == 0, errors
    assert {(one.runtime.name, one.package_format) for one in read_records(tmp_path) if one.runtime} == {
        ("portable", "aimodel"), ("coreai", "aimodel"),
    }  # fmt: skip
    assert "not done after 1 s" in refused(*command, "--runtime", "coreai", "--time-limit", 1)


def test_pixels_as_an_array_of_bytes(run_bench, refused, folder: Path, tiny: Path, tmp_path: Path) -> None:
    """Another's `.aimodel` does not say that it takes an image."""
    foreign = tmp_path / "foreign.aimodel"
    shutil.copytree(tiny, foreign)
    metadata = json.loads((foreign / METADATA).read_text())
    del metadata[DEFINED][OWN_METADATA]
    (foreign / METADATA).write_text(json.dumps(metadata))
    data = ("--data", f"imagefolder:{folder}", "--json")
    assert "nothing says which ones pixels become; say it with --scale" in refused("accuracy", foreign, *data)
    code, output, errors = run_bench("accuracy", foreign, *data, "--scale", 1)
    assert code == 0, errors
    (expected,) = json.loads(run_bench("accuracy", tiny, *data)[1])
    assert json.loads(output)[0]["top1"] == expected["top1"]


def test_latency_says_what_runs_it(refused, tiny: Path, package: Path) -> None:
    assert "Core ML does not run a .aimodel; `--runtime coreai` times it in Core AI" in refused("latency", tiny)
    assert "Core AI runs a .aimodel, which this is not" in refused("latency", package, "--runtime", "coreai")
    for option, line in {
        "--batch-size=2": "one sample a call; leave out --batch-size",
        "--device=iPhone": "runs on this machine: leave out --device",
        "--compute-units=cpu_and_ne": "Core AI has the processor alone here",
    }.items():
        assert line in refused("latency", tiny, "--runtime", "coreai", option)


def test_latency_in_core_ai(run_bench, tiny: Path, half: Path, tmp_path: Path) -> None:
    """By Apple's own runtime of this processor: every sample there, and the caption says that it is no Mac's."""
    visits = ("--rounds", 2, "--predictions", 3, "--seconds", 0, "--results", tmp_path)
    code, output, errors = run_bench("latency", tiny, half, "--runtime", "coreai", *visits)
    assert code == 0, errors
    assert "Latency in ms, Core AI on " in output
    assert ("no Apple hardware's time" in output) == (sys.platform != "darwin")
    records = read_latency_records(tmp_path)
    assert [record.package.name for record in records] == ["half.aimodel", "tiny.aimodel"]
    for record in records:
        assert (record.runtime.name, record.runtime.compute_units) == ("coreai", "cpu_only")
        assert [len(one.call_ns) for one in record.rounds] == [3, 3]
        assert record.cold_load_ns is not None
        assert record.cached_load_ns is not None
        assert record.compile_ns is None
