"""What the project can be extended by without touching it: an algorithm, and a package format."""

import json
import shutil

import pytest

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.formats import protocol
from coreml_prune_bench.bench.formats.mlpackage import MLPACKAGE
from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.models.pruning import algorithm, coremltools_yaml
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.report.accuracy_tables import rows
from tests.bench.fifth_algorithm import RANDOM, RandomConfig

SUITE = """
description = "a fifth algorithm"
models = ["tiny"]
weights = "none"
trials = 2
data.default = "digits"

[training]
epochs = 2

[[configs]]
algorithm = "random"
sparsity = 0.5

[[configs]]
algorithm = "post-training"
sparsity = 0.5
"""


@pytest.fixture
def fifth(monkeypatch):
    """The algorithm, known to the project for the time of a test."""
    monkeypatch.setattr(algorithm, "_ALGORITHMS", dict(algorithm._ALGORITHMS))
    algorithm.register(RANDOM)


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "fifth.toml"
    path.write_text(SUITE)
    return path


@pytest.mark.usefixtures("fifth")
def test_an_algorithm_in_one_file_is_run_tabled_and_advised(run_bench, suite, tmp_path):
    results = tmp_path / "results"
    code, output, errors = run_bench("run", "--suite", suite, "--results", results)
    assert code == 0, errors
    assert "Random pruning" in output
    (row,) = [row for row in rows(read_records(results)) if row["algorithm"] == "random"]
    assert (row["trials"], row["sparsity"], row["config"]) == (2, 0.5, "Unstructured Sparsity 50%")
    assert row["compression_ratio"] > 1.5
    (layer, *_) = next(r for r in read_records(results) if r.pruning.algorithm == "random").package.layers
    assert layer.sparsity == pytest.approx(0.5, abs=0.005)
    code, output, errors = run_bench("table", "--against", "random", "--results", results)
    assert code == 0, errors

    command = ["advise", "tiny", "--data", "digits", "--suite", suite, "--results", results]
    code, output, errors = run_bench(*command, "--max-drop", 5, "--min-ratio", 3, "--float16", "--json")
    assert code in (0, 1), errors  # 1: nothing is small enough and within the drop
    assert "random" in [one["algorithm"] for one in json.loads(output)["tried"]]


@pytest.mark.usefixtures("fifth")
def test_a_misspelled_key_of_it_is_told_with_the_right_one(refused, suite):
    suite.write_text(SUITE.replace("sparsity = 0.5", "sparcity = 0.5", 1))
    assert "unknown key 'sparcity'; did you mean 'sparsity'?" in refused("run", "--suite", suite)


@pytest.mark.usefixtures("fifth")
def test_its_code_is_in_its_key_and_in_no_other(suite):
    by_algorithm = {cell.algorithm: cell.code for cell in lay_out(load_suite(str(suite)), None)}
    module = "tests.bench.fifth_algorithm"
    assert {name: module in code for name, code in by_algorithm.items()} == {
        "dense": False,
        "random": True,
        "post-training": False,
    }
    assert "coreml_prune_bench.models.pruning.task" in by_algorithm["random"]


@pytest.mark.usefixtures("fifth")
def test_without_a_counterpart_in_core_ml_tools_there_is_no_yaml():
    with pytest.raises(Exception, match="no counterpart in Core ML Tools"):
        coremltools_yaml.coremltools_yaml(RandomConfig(sparsity=0.5), {}, 10)


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ValueError, match="'post-training' is registered already"):
        algorithm.register(next(one for one in algorithm.algorithms() if one.name == "post-training"))


class _Boxed:
    """A format that is another one in a folder: what it is made of is seen only by itself."""

    name = "boxed"
    suffix = ".box"
    packages: tuple[str, ...] = ("coremltools",)

    def save_dense(self, model, image_size, path):
        MLPACKAGE.save_dense(model, image_size, self._inside(path))

    def save_pruned(self, pruned, path):
        MLPACKAGE.save_pruned(pruned, self._inside(path))

    def read(self, path):
        return MLPACKAGE.read(path / "inside.mlpackage")

    def check(self, path, pruned, dense):
        MLPACKAGE.check(path / "inside.mlpackage", pruned, dense)

    def load(self, evaluation):
        return lambda path: MLPACKAGE.load(evaluation)(path / "inside.mlpackage")

    def _inside(self, path):
        path.mkdir()
        return path / "inside.mlpackage"


def test_a_second_package_format_needs_only_itself(monkeypatch, tiny_suite, tiny_results, tiny_run, tmp_path):
    """Cells, run, records and tables take it as it is, and its numbers are those of what it holds."""
    monkeypatch.setattr(protocol, "_FORMATS", dict(protocol._FORMATS))
    protocol.register(_Boxed())
    shutil.copytree(tiny_results, tmp_path / "results")
    loaded = load_suite(str(tiny_suite))
    cells = lay_out(loaded.model_copy(update={"configs": loaded.configs[:1]}), None, package_format="boxed")
    outcome = run(cells, RunOptions(Store(tmp_path / "results")))
    assert outcome.measured == len(cells) == 2
    assert not outcome.failed
    before = {(r.pruning.algorithm, r.pruning.config): r for r in tiny_run.records}
    for record in outcome.records:
        same = before[record.pruning.algorithm, record.pruning.config]
        assert record.key != same.key
        assert record.predictions == same.predictions
        assert record.package.weight_bytes == same.package.weight_bytes
    assert sorted(path.suffix for path in tmp_path.glob("results/artifacts/*/*.box")) == [".box", ".box"]
