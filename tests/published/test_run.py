"""The published packages, measured beside ours."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from coreml_prune_bench.published.packages import published_folder
from coreml_prune_bench.records.accuracy import read_records
from tests.published.samples import weight_file, zip_of


@pytest.fixture
def published_suite(tmp_path) -> Path:
    path = tmp_path / "published.toml"
    path.write_text('description = "d"\nmodels = ["tiny"]\npackages = "published"\n')
    return path


@pytest.fixture
def imagenet(tmp_path) -> str:
    """Three images of a data set of 1,000 classes."""
    draw = np.random.default_rng(0)
    for label in (0, 7, 999):
        folder = tmp_path / "imagenet" / "val" / f"c{label}"
        folder.mkdir(parents=True)
        PIL.Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "x.png")
    (tmp_path / "imagenet" / "classes.txt").write_text("\n".join(f"c{label}" for label in range(1000)))
    return f"imagefolder:{tmp_path / 'imagenet'}"


def test_a_run_measures_the_packages_as_they_are(run_bench, published, published_suite, imagenet, tmp_path):
    run_bench("fetch-published")
    arguments = ("run", "--suite", published_suite, "--data", imagenet, "--results", tmp_path / "r")
    code, output, errors = run_bench(*arguments, "--format", "json")
    assert code == 0, errors
    dense, half_ = json.loads(output)
    assert (dense["algorithm"], dense["algorithm_title"], dense["sparsity"]) == ("dense", "published package", 0)
    assert half_["algorithm_title"] == "MagnitudePruner, published package"
    assert (half_["algorithm"], half_["config"], half_["sparsity"]) == ("published", "Unstructured Sparsity 50%", 0.5)
    dense_bytes, half_bytes = (weight_file(name).stat().st_size for name in ("Dense", "Half"))
    assert half_["compression_ratio"] == dense_bytes / half_bytes
    assert half_["scope"] == "2 of 4 weights, as found"  # coremltools leaves those of 2048 elements or fewer dense
    assert half_["full_validation_set"] is False
    assert not list((tmp_path / "r").rglob("*.mlpackage"))
    again = run_bench(*arguments, "--format", "json")
    assert again[:2] == (0, output)
    assert "0 of 2 cells measured now" in again[2]
    record = next(r for r in read_records(tmp_path / "r") if r.pruning.sparsity)
    assert record.package
    assert [layer.storage for layer in record.package.layers] == ["sparse"] * 2
    assert all(layer.sparsity == pytest.approx(0.5, abs=0.01) for layer in record.package.layers)
    assert record.network.weights == "as published"

    code, output, _ = run_bench("table", "--results", tmp_path / "r", "--compare", "published", "--format", "json")
    compared = {row["config"]: row for row in json.loads(output)}
    assert compared["Unstructured Sparsity 50%"]["published_top1_mean"] == 70.5
    assert compared["Float16"]["published_top1_mean"] == 71.5
    assert compared["Float16"]["top1_difference"] is None  # of other images
    assert compared["Float16"]["not_comparable"] == f"{dense['images']} images"


def test_build_says_where_the_packages_are(run_bench, published, published_suite, imagenet, tmp_path):
    run_bench("fetch-published")
    code, output, _ = run_bench(
        "build", "--suite", published_suite, "--data", imagenet, "--results", tmp_path / "r", "--json"
    )
    assert code == 0
    assert [Path(cell["package"]).name for cell in json.loads(output)] == ["Dense.mlpackage", "Half.mlpackage"]


def test_a_package_that_is_not_understood_costs_its_row_alone(
    run_bench, published, published_suite, imagenet, tmp_path, packages
):
    with zipfile.ZipFile(io.BytesIO(packages["Half"])) as archive:
        entries = [(name, archive.read(name).replace(b"relu", b"rely")) for name in archive.namelist()]
    published.files["/Half.mlpackage.zip"] = zip_of(*entries)
    run_bench("fetch-published")
    code, output, errors = run_bench(
        "run", "--suite", published_suite, "--data", imagenet, "--results", tmp_path / "r", "--format", "json"
    )
    assert code == 1
    assert "rely" in errors
    assert [row["failed_trials"] for row in json.loads(output)] == [0, 1]


def test_packages_that_were_not_fetched_or_were_changed_are_not_measured(
    refused, run_bench, published, published_suite, imagenet, tmp_path
):
    arguments = ("run", "--suite", published_suite, "--data", imagenet, "--results", tmp_path / "r")
    assert "Dense.mlpackage is not there: run `coreml-prune-bench fetch-published` first" in refused(*arguments)
    run_bench("fetch-published")
    (published_folder() / "Dense.mlpackage/Manifest.json").write_text("{}")
    assert "Dense.mlpackage is not what was downloaded" in refused(*arguments)


def test_what_does_not_fit_published_packages_is_refused(
    refused, run_bench, published, published_suite, imagenet, tmp_path
):
    run_bench("fetch-published")
    assert "leave out --weights" in refused(
        "run", "--suite", published_suite, "--data", imagenet, "--weights", tmp_path
    )
    assert "digits has 10 classes" in refused("run", "--suite", published_suite, "--data", "digits")
    published_suite.write_text(
        published_suite.read_text() + '[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\n'
    )
    assert 'or packages = "published" in their place' in refused("run", "--suite", published_suite, "--data", imagenet)
