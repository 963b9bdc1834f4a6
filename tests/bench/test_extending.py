"""What the project can be extended by without touching it, as docs/extending.md says; its examples are run."""

import json
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from sklearn.metrics import balanced_accuracy_score

from coreml_prune_bench import data
from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.formats import protocol
from coreml_prune_bench.bench.formats.mlpackage import MLPACKAGE
from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.models import registry as networks
from coreml_prune_bench.models.pruning import algorithm, coremltools_yaml
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.records.predictions import Predictions
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.report import accuracy_tables, formats
from coreml_prune_bench.report.accuracy_tables import rows
from coreml_prune_bench.report.config_rows import mean
from coreml_prune_bench.runtimes.portable import registry as operations
from tests.bench.fifth_algorithm import RANDOM, RandomConfig
from tests.factories import accuracy_record
from tests.runtimes.portable.programs import all_close
from tests.runtimes.portable.programs import run as run_operations

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
def test_an_algorithm_in_one_file_is_run_and_tabled(run_bench, suite, tmp_path):
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


@pytest.mark.slow
@pytest.mark.usefixtures("fifth")
def test_an_algorithm_in_one_file_is_advised(run_bench, suite, tmp_path):
    command = ["advise", "tiny", "--data", "digits", "--suite", suite, "--results", tmp_path / "results"]
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
    cells = lay_out(loaded.model_copy(update={"configs": loaded.configs[:1]}), None, package_formats=["boxed"])
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


def section(heading: str) -> str:
    """What docs/extending.md says under a heading."""
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def example(heading: str) -> str:
    """Its first block of Python."""
    found = re.search(r"```python\n(.*?)```", section(heading), re.DOTALL)
    return found[1]


def test_the_network_of_the_docs_is_built_and_cut_into_stages(monkeypatch):
    monkeypatch.setattr(networks, "_REGISTRY", dict(networks._REGISTRY))
    exec(example("A network"), {})
    network = networks.get_network("shufflenet_v2")
    model = untrained_model(network, 7)
    assert model.get_submodule(network.head).out_features == 7
    assert len(network.sequential(model)) > 5


def test_the_operation_of_the_docs_is_its_definition(monkeypatch, draw, tmp_path):
    import_module("coreml_prune_bench.runtimes.portable.ops")  # registers all, the one that is replaced here too
    others = {name: entry for name, entry in operations._OPERATIONS.items() if name != "silu"}
    monkeypatch.setattr(operations, "_OPERATIONS", others)
    exec(example("An operation of the portable runtime"), {})
    x = draw.normal(size=(2, 3)).astype(np.float32)
    results = run_operations(tmp_path, {"silu": lambda x: mb.silu(x=x)}, x)
    all_close(results, {"silu": x / (1 + np.exp(-x))})


def test_the_data_source_of_the_docs_is_opened_by_its_spec(monkeypatch, draw, tmp_path):
    source: dict[str, object] = {"__name__": __name__}
    exec(example("A data source"), source)
    opens = source["open_arrays"]
    monkeypatch.setitem(data._KINDS, "arrays", ("arrays:PATH", lambda place: opens(Path(place))))
    images = draw.integers(0, 256, (5, 40, 48, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1, 1, 0, 1], classes=["cat", "dog"])
    opened = data.open_data(f"arrays:{tmp_path / 'x.npz'}")
    assert (opened.classes, opened.train, opened.image_size) == (("cat", "dog"), None, 40)
    np.testing.assert_array_equal(opened.val.image(3), images[3])
    assert len(opened.val.fingerprint) == 64
    with pytest.raises(DataError, match=r"cannot read .*y.npz"):
        data.open_data(f"arrays:{tmp_path / 'y.npz'}")
    with pytest.raises(DataError, match="arrays:PATH"):
        data.open_data("unknown:x")


def test_the_metric_of_the_docs_is_what_scikit_learn_computes_and_is_a_column_of_every_table(draw, monkeypatch):
    said: dict[str, Any] = {}
    exec(example("A metric"), said)
    labels, best = draw.integers(0, 4, (2, 60)).tolist()
    predictions = Predictions(labels=tuple(labels), top5=tuple((top, 9) for top in best))
    expected = 100 * balanced_accuracy_score(labels, best)
    assert said["balanced_accuracy"](predictions) == pytest.approx(expected)
    _, column = re.findall(r"```python\n(.*?)```", section("A metric"), re.DOTALL)
    given = {"Column": formats.Column, "mean": mean, "number": formats.number, **said}
    monkeypatch.setattr(accuracy_tables, "COLUMNS", [*accuracy_tables.COLUMNS, eval(column, given)])
    monkeypatch.setattr(accuracy_tables, "COMPARISON_COLUMNS", accuracy_tables.COLUMNS)
    record = accuracy_record([True]).model_copy(update={"predictions": predictions})
    assert json.loads(accuracy_tables.render([record], format="json"))[0]["balanced_mean"] == pytest.approx(expected)
    table = accuracy_tables.render([record])
    assert "Balanced Accuracy" in table
    assert f"{expected:.2f}" in table
