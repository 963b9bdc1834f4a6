"""The Python API: what it lists can be imported, lazily, and does what the command line does."""

import subprocess
import sys
from pathlib import Path

import pytest

import coreml_prune_bench as bench
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.accuracy import read_records
from tests.tiny_network import TINY

RESULTS = Path(__file__).parents[1] / "results"


def test_all_is_what_can_be_imported():
    for name in bench.__all__:
        assert getattr(bench, name).__doc__, name
    assert sorted(bench.__all__) == sorted(bench._PLACES) == sorted(dir(bench))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bench.nothing


def test_importing_it_loads_neither_torch_nor_coremltools():
    heavy = ("torch", "coremltools", "pandas", "onnxruntime", "numpy")
    code = f"import sys, coreml_prune_bench; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_networks_and_algorithms_are_those_that_ship():
    code = (
        "import coreml_prune_bench as b, sys; print([n.name for n in b.networks()], [a.name for a in b.algorithms()], "
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "['mobilenet_v2', 'mobilenet_v3_small', 'resnet50'] "
        "['post-training', 'sparse-gpt', 'blockwise-reconstruction', 'magnitude-pruner', "
        "'coreai-magnitude-pruner'] False\n"
    )


def test_run_evaluate_inspect_and_gate_agree(tiny_suite, tiny_results, tiny_run):
    """On a folder in which everything is measured already."""
    results = bench.run(bench.load_suite(str(tiny_suite)), results=tiny_results)
    assert {record.key for record in results} == {record.key for record in tiny_run.records}
    assert len(bench.load_records(tiny_results)) == len(results)

    record = next(record for record in results if record.pruning.algorithm == "sparse-gpt")
    (package,) = (
        path
        for path in tiny_results.glob("artifacts/*/tiny.mlpackage")
        if bench.inspect(path).weight_bytes == record.package.weight_bytes
        and bench.evaluate(path, "digits") == record.predictions
    )
    assert bench.inspect(package).whole_model_sparsity == record.package.whole_model_sparsity

    report = bench.gate(tiny_results, tiny_results)
    # The same packages: nothing is worse; of two trials that differ, 400 images cannot tell.
    assert (report.exit_code, {row.verdict for row in report.rows} <= {"same", "cannot tell"}) == (0, True)
    assert bench.portable.load(package).classes is None


def test_a_frame_has_the_rows_of_the_table():
    frame = bench.load_records(RESULTS / "few-images").to_frame()
    records = read_records(RESULTS / "few-images")
    rows = {(r.network.name, r.pruning.algorithm, r.pruning.config) for r in records}
    assert {tuple(row) for row in frame[["model", "algorithm", "config"]].to_numpy()} == rows


def test_what_the_user_can_mend_is_a_bench_error(tmp_path):
    with pytest.raises(bench.BenchError, match="no suite 'quik'"):
        bench.load_suite("quik")
    with pytest.raises(bench.BenchError, match="no records in"):
        bench.load_records(tmp_path)


def test_advise_is_the_commands(tiny_suite, tmp_path):
    options = {"suite": str(tiny_suite), "results": tmp_path / "results", "max_drop": 50, "min_ratio": 1.2}
    advice = bench.advise("tiny", "digits", **options, eight_bits=False)
    assert advice.met
    assert advice.tried[advice.chosen].ratio >= 1.2
    written = bench.inspect(tmp_path / "results" / "advice" / "tiny" / "tiny.mlpackage")
    assert written.weight_bytes == advice.tried[advice.chosen].weight_bytes
    assert untrained_model(TINY, 10) is not None
