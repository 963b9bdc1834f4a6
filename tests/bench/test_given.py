"""Packages that nobody built here, kept as records: the gate, tables and the report take them."""

import json
from pathlib import Path
from typing import Any

import pytest

from coreml_prune_bench.bench.given import names_of
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.data import open_data
from coreml_prune_bench.records.accuracy import read_records
from tests.gating.test_compare import always  # noqa: F401  (a fixture)


@pytest.fixture
def kept(run_bench: Any, always: Any, images: Path, tmp_path: Path) -> tuple[Path, Path]:  # noqa: F811
    """Two results folders with a package of one name: one that always answers a, and one that always answers b."""
    folders = tmp_path / "old", tmp_path / "new"
    for folder, answer in zip(folders, "ab", strict=True):
        options = ["--data", f"imagefolder:{images}", "--results", folder, "--name", "net, always one"]
        code, _, errors = run_bench("accuracy", always[answer], *options)
        assert code == 0, errors
        assert f"1 record in {folder / 'records'}" in errors
    return folders


def test_what_got_worse_is_named(run_bench: Any, kept: tuple[Path, Path], images: Path) -> None:
    old, new = kept
    (record,) = read_records(new)
    assert (record.network.name, record.pruning.config, record.suite) == ("net", "always one", "packages")
    command = record.pruning.settings["command"]
    assert command.startswith("coreml-prune-bench accuracy ")
    assert command.endswith("--results DIR --name 'net, always one'")
    val = open_data(f"imagefolder:{images}").val
    of_a = [name for name, label in zip(val.ids, val.labels, strict=True) if label == 0]
    code, output, _ = run_bench("gate", "--results", new, "--baseline", old, "--format", "json")
    assert json.loads(output)["rows"][0]["verdict"] in ("cannot tell", "same")  # 4 lost, 4 gained
    # Against one that is always right, written by hand into the older record.
    (file,) = (old / "records").glob("*.json")
    content = json.loads(file.read_text())
    content["predictions"]["top5"] = [[label] for label in content["predictions"]["labels"]]
    file.write_text(json.dumps(content))
    code, output, _ = run_bench("gate", "--results", new, "--baseline", old, "--format", "json")
    (row,) = json.loads(output)["rows"]
    assert (code, row["verdict"]) == (1, "worse")
    assert len(row["lost"]["images"]) == 8
    assert set(of_a) < set(row["lost"]["images"])
    assert [(one["name"], one["images"], one["lost"], one["gained"]) for one in row["lost"]["classes"]] == [
        ("a", 4, 4, 0), ("c", 4, 4, 0),
    ]  # fmt: skip
    code, output, _ = run_bench("gate", "--results", new, "--baseline", old)
    first = output.splitlines()[0]
    assert first.startswith("net, ")
    assert first.endswith("always one: 100.00 -> 33.33 %, lost 66.67 points")
    assert (
        "8 images lost, 0 gained; most in a (4 of 4 lost, 0 gained), c (4 of 4 lost, 0 gained); lost: val/a/" in output
    )
    images.rename(images.with_name("away"))  # then by number
    _, output, _ = run_bench("gate", "--results", new, "--baseline", old)
    assert "most in class 0 (4 of 4 lost, 0 gained), class 2 (4 of 4 lost, 0 gained); lost: image 1, image 2" in output


def test_tables_the_report_and_absolute_rules_take_them(
    run_bench: Any,
    kept: tuple[Path, Path],
    always: Any,  # noqa: F811
    images: Path,
    tmp_path: Path,
) -> None:
    _, new = kept
    code, output, errors = run_bench("table", "--results", new)
    assert code == 0, errors
    assert "always one" in output
    code, _, errors = run_bench("report", tmp_path / "r.html", "--results", new)
    assert code == 0, errors
    assert "accuracy b.mlpackage --data" in (tmp_path / "r.html").read_text()
    code, output, _ = run_bench("gate", "--results", new, "--require", "top1 >= 90")
    assert code == 1
    assert "always one: top1 >= 90 is missed: 33.33 %" in output.splitlines()[0]
    # Another one of the network stands beside it, however its images were prepared.
    options = ["--data", f"imagefolder:{images}", "--results", new, "--name", "net, stretched", "--crop", "scaleFill"]
    assert run_bench("accuracy", always["a"], *options)[0] == 0
    code, output, _ = run_bench("gate", "--results", new, "--require", "top1 >= 90", "--format", "json")
    assert [(row["config"], row["verdict"]) for row in json.loads(output)["rows"]] == [
        ("always one", "worse"), ("stretched", "worse"),
    ]  # fmt: skip
    code, output, errors = run_bench("table", "--results", new)
    assert "always one" in output
    assert "| scaleFill, bilinear |" in output
    assert "left out" not in errors


def test_the_dense_one_is_named_by_the_network_alone(
    run_bench: Any,
    always: Any,  # noqa: F811
    images: Path,
    tmp_path: Path,
) -> None:
    """Neither package has compressed weights; the other one, as with channels pruned away, is held to rules."""
    names = ("--name", "net", "--name", "net, channels pruned")
    data = ("--data", f"imagefolder:{images}", "--results", tmp_path)
    assert run_bench("accuracy", always["a"], always["b"], *names, *data)[0] == 0
    kinds = {record.pruning.config: record.pruning.algorithm for record in read_records(tmp_path)}
    assert kinds == {"Float16": "dense", "channels pruned": "given"}
    code, output, _ = run_bench("gate", "--results", tmp_path, "--require", "ratio >= 1.5")
    assert (code, output.splitlines()[0]) == (
        1, "net, given, channels pruned: ratio >= 1.5 is missed: 1.00 times smaller",
    )  # fmt: skip


def test_compare_ends_as_a_gate_does(run_bench: Any, always: Any, images: Path) -> None:  # noqa: F811
    packages, data = (always["a"], always["b"]), ("--data", f"imagefolder:{images}")
    assert run_bench("compare", *packages, *data)[0] == 0
    code, output, _ = run_bench("compare", *packages, *data, "--require", "top1 >= 90")
    assert code == 1
    assert output.startswith("top1 >= 90 is missed: 33.33 %\n")
    assert "top1 >= 90 missed: 33.33 %, -56.67 points" in output
    assert run_bench("compare", *packages, *data, "--require", "top1 >= 2")[0] == 0
    code, output, _ = run_bench("compare", *packages, *data, "--require", "ratio >= 1.5")
    assert (code, output.splitlines()[0]) == (1, "ratio >= 1.5 is missed: 1.00 times smaller")
    assert run_bench("compare", *packages, *data, "--require", "loss_against_dense <= 90")[0] == 0
    code, _, errors = run_bench("compare", *packages, *data, "--require", "latency_ms <= 2")
    assert (code, errors.splitlines()[-1][:60]) == (2, "error: latency_ms <= 2: no row is held to it, for the run ha")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a"], "expected one for each of 2 packages, got 1"),
        (["a", ", b"], 'expected "NETWORK" or "NETWORK, CONFIG"'),
        (["a, b", "a,b"], "2 packages are called 'a, b'; give names that differ"),
    ],
)
def test_names_that_are_none(given: list[str], words: str) -> None:
    with pytest.raises(BenchError) as refusal:
        names_of([Path("x.mlpackage"), Path("y.mlpackage")], given)
    assert words in str(refusal.value)
    assert names_of([Path("x.mlpackage"), Path("y.mlpackage")], None) == [("x", ""), ("y", "")]
