"""One suite in both package formats: one pruned network, the same zeros, the same predictions."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from coreml_prune_bench.aimodel.programs import read_program
from coreml_prune_bench.bench.build import builder
from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import Outcome, RunOptions, run
from coreml_prune_bench.bench.suite import choose, load_suite
from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.report.format_tables import format_pairs, render_formats
from tests.latency.records import record as latency

BOTH = ["mlpackage", "aimodel"]
WEIGHTS = [f"{layer}_weight" for layer in ("features_0", "features_3", "features_6", "classifier")]


@pytest.fixture(scope="module")
def pruned() -> list[str]:
    """The cells whose networks were pruned."""
    return []


@pytest.fixture(scope="module")
def both(
    tiny_suite: Path, tiny_results: Path, tiny_run: Outcome, tmp_path_factory: pytest.TempPathFactory, pruned: list[str]
) -> Iterator[tuple[Path, Outcome]]:
    """Dense, and pruned by an algorithm that works on the network and by one that works on the ML program."""
    pytest.importorskip("coreai_torch", reason="without the extra coreai")
    results = tmp_path_factory.mktemp("formats") / "results"
    shutil.copytree(tiny_results, results)
    shutil.rmtree(results / "records")
    suite = choose(load_suite(str(tiny_suite)), package_formats=BOTH)
    suite = suite.model_copy(update={"configs": suite.configs[1:3]})
    with pytest.MonkeyPatch.context() as patch:
        prune = builder.prune_cell
        patch.setattr(builder, "prune_cell", lambda cell, *rest: pruned.append(cell.name) or prune(cell, *rest))
        yield results, run(lay_out(suite, None), RunOptions(Store(results)))


def test_both_formats_have_the_same_zeros_and_predictions(both: tuple[Path, Outcome]) -> None:
    _, outcome = both
    assert not outcome.failed
    by_format = [[r for r in outcome.records if r.package_format == name] for name in BOTH]
    assert [len(records) for records in by_format] == [3, 3]
    for core_ml, core_ai in zip(*by_format, strict=True):
        assert core_ml.pruning == core_ai.pruning
        assert core_ml.predictions is not None
        assert core_ai.predictions is not None
        assert core_ml.package is not None
        assert core_ai.package is not None
        assert core_ml.predictions.labels == core_ai.predictions.labels
        assert core_ml.predictions.top1 == core_ai.predictions.top1
        assert core_ml.package.layers == core_ai.package.layers
        assert core_ml.package.whole_model_sparsity == pytest.approx(core_ai.package.whole_model_sparsity)
        assert core_ai.package.weight_bytes == pytest.approx(core_ml.package.weight_bytes, rel=0.35)


def test_a_network_is_pruned_once_for_both(both: tuple[Path, Outcome], pruned: list[str]) -> None:
    assert len(pruned) <= 2  # the ML packages may have been there already
    assert len({name.removesuffix(", .aimodel") for name in pruned}) == len(pruned)


def test_the_table_has_one_row_for_both(both: tuple[Path, Outcome], run_bench) -> None:
    results, outcome = both
    rows = format_pairs(outcome.records)
    assert [row["algorithm"] for row in rows] == ["dense", "post-training", "sparse-gpt"]
    for row in rows:
        assert (row["package_format"], row["other_package_format"]) == ("mlpackage", "aimodel")
        assert (row["top1_difference"], row["agreement"], row["p_holm"]) == (0, 100, 1)
        assert row["low"] < 0 < row["high"]
    code, output, _ = run_bench("table", "--compare", "formats", "--results", results)
    assert code == 0
    assert "Core ML Ratio" in output
    code, output, _ = run_bench("table", "--results", results)
    assert code == 0
    assert "Package Format" in output


def test_latencies_stand_beside_each_other_where_both_were_measured_alike(both: tuple[Path, Outcome]) -> None:
    """Of one device and choice of compute units, the dense network's alone here; medians by hand."""
    _, outcome = both
    dense = {r.package_format: r.package for r in outcome.records if r.pruning.algorithm == "dense"}
    timed = [
        ("mlpackage", "all", "coreml", ([3, 2, 4], [2, 2, 9])),
        ("mlpackage", "cpu_only", "coreml", ([30, 20, 40],)),
        ("aimodel", "all", "coreai", ([1, 2, 1], [3, 2, 2])),
        ("aimodel", "cpu_and_ne", "coreai", ([7, 7, 7],)),
        ("aimodel", "cpu", "portable", ([5, 5, 5],)),
    ]
    latencies = []
    for format, units, name, samples in timed:
        package = dense[format]
        assert package is not None
        measured = latency(*samples, name=package.sha256)
        runtime = measured.runtime.model_copy(update={"name": name, "compute_units": units})
        latencies.append(measured.model_copy(update={"runtime": runtime, "key": f"{format} {units}"}))
    rows = format_pairs(outcome.records, latencies)
    assert [row["compute_units"] for row in rows] == ["all", None, None]
    assert (rows[0]["latency_ms"], rows[0]["other_latency_ms"]) == (2.5, 1.5)  # medians of 3 and 2, of 1 and 2
    table = render_formats(outcome.records, latencies)
    assert "Core AI (ms)" in table
    assert "the median of a prediction on MacBook Pro (Mac14,9), all" in table
    assert "(ms)" not in render_formats(outcome.records)


def test_commands_take_either_format(both: tuple[Path, Outcome], run_bench, tmp_path: Path) -> None:
    """One image, and both packages beside each other: the same classes, the same layers, no loss."""
    results, outcome = both
    dense = {r.package_format: r for r in outcome.records if r.pruning.algorithm == "dense"}
    found = {tree_hash(path): path for form in BOTH for path in (results / "artifacts").glob(f"*/*.{form}")}
    core_ml, core_ai = (found[package.sha256] for form in BOTH if (package := dense[form].package))
    compared = json.loads(run_bench("compare", core_ml, core_ai, "--data", "digits", "--json")[1])
    assert compared["lost"] == compared["gained"] == []
    # A program's bytes are not its weights' alone, and of a network so small they are a good part.
    assert {check["metric"]: check["verdict"] for check in compared["row"]["checks"]} == {
        "accuracy": "same",
        "size": "worse",
        "sparsity": "same",
    }
    assert {layer["name"]: layer["sparsity"] for layer in compared["layers"]} == {weight: [0, 0] for weight in WEIGHTS}
    given = read_program(core_ai).inputs[0]
    image = tmp_path / "noise.png"
    pixels = np.random.default_rng(1).integers(0, 256, given.shape, dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(image)
    shown = []
    for package in (core_ml, core_ai):
        code, output, errors = run_bench("predict", package, "--input", f"{given.name}={image}", "--json")
        assert code == 0, errors
        shown.append(json.loads(output) | {"package": "either"})
    assert shown[0] == shown[1]


def test_with_one_format_nothing_is_said_of_formats(tiny_run: Outcome, tiny_results: Path, run_bench) -> None:
    assert {record.package_format for record in tiny_run.records} == {"mlpackage"}
    _, output, _ = run_bench("table", "--results", tiny_results)
    assert "Package Format" not in output


def test_rows_of_other_formats_are_no_counterparts(both: tuple[Path, Outcome], run_bench) -> None:
    results, _ = both
    code, output, _ = run_bench("table", "--against", "dense", "--format", "json", "--results", results)
    assert code == 0
    assert output.count('"config"') == 4  # two rows of each format, each beside its own dense network


@pytest.mark.parametrize("command", ["run", "build"])
def test_an_unknown_format_is_refused(refused, command: str, tiny_suite: Path, tmp_path: Path) -> None:
    line = refused(command, "--suite", tiny_suite, "--package-format", "aimodl", "--results", tmp_path)
    assert "no package format 'aimodl', expected one of aimodel, mlpackage; did you mean 'aimodel'?" in line


def test_a_suite_names_its_formats(tmp_path: Path, tiny_suite: Path, refused) -> None:
    suite = tmp_path / "two.toml"
    suite.write_text('package_formats = ["mlpackage", "coreml"]\n' + tiny_suite.read_text())
    assert "package_formats: no package format 'coreml'" in refused(
        "run", "--suite", suite, "--results", tmp_path / "r"
    )
    suite.write_text('package_formats = ["aimodel"]\n' + tiny_suite.read_text())
    cells = lay_out(load_suite(str(suite)), None)
    assert {cell.package_name for cell in cells} == {"tiny.aimodel"}
    assert len({cell.record_name for cell in (*cells, *lay_out(load_suite(str(tiny_suite)), None))}) == 2 * len(cells)


def test_joint_forms_are_refused_for_the_cell(both: tuple[Path, Outcome], tiny_suite: Path) -> None:
    results, _ = both
    suite = choose(load_suite(str(tiny_suite)), package_formats=["aimodel"], algorithms=["sparse-gpt"])
    config = suite.configs[0].model_copy(update={"quantize_bits": 8})
    outcome = run(lay_out(suite.model_copy(update={"configs": (config,)}), None), RunOptions(Store(results)))
    (failed,) = outcome.failed
    assert failed.brief_reason.startswith("8 bits a value are stored in .mlpackage alone")


def test_predictions_are_of_the_images(both: tuple[Path, Outcome]) -> None:
    """Against a mistake that would give both formats one wrong input: the dense network knows digits."""
    _, outcome = both
    dense = [r for r in outcome.records if r.pruning.algorithm == "dense"]
    assert all(r.predictions and r.predictions.top1 > 0.5 for r in dense)
    assert np.isfinite([r.predictions.top1 for r in dense if r.predictions]).all()
