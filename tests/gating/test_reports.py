"""A gate's report where people read it, by what reads it there."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import junitparser
import pytest
from markdown_it import MarkdownIt

from coreml_prune_bench.gating.baseline import from_records, write_baseline
from coreml_prune_bench.gating.reports import (
    as_github_annotations,
    as_github_summary,
    as_json,
    as_junit,
    as_table,
)
from coreml_prune_bench.gating.verdicts import gate
from tests.factories import accuracy_record, latency_record, noisy_rounds, write_records
from tests.gating.samples import bits

ROOT = Path(__file__).parents[2]


@pytest.fixture
def report():
    """One row of each verdict."""
    before, lost, gained = bits()[0], bits(lost=30)[1], bits(gained=30)[1]
    unclear = bits(20, 20)[1]
    new = "2026-01-02"
    other = {"fingerprint": "e" * 64}
    old_latency = latency_record(noisy_rounds(2e6, seed=1))
    run = from_records(
        [
            accuracy_record(lost, model="a: 100%, <worse>\x07", created=new),
            accuracy_record(gained, model="better", created=new),
            accuracy_record(unclear, model="unclear", created=new),
            accuracy_record(before, model="other data", created=new, data=other),
            accuracy_record(before, model="new", created=new),
        ],
        [latency_record(noisy_rounds(2e6, seed=2), created=new)],
    )
    names = ("a: 100%, <worse>\x07", "better", "unclear", "other data", "missing")
    return gate(from_records([accuracy_record(before, model=name) for name in names], [old_latency]), run)


def test_the_table_has_effect_interval_p_and_what_would_have_been_seen(report):
    text = as_table(report)
    first, empty, head, *_ = text.splitlines()
    assert first.endswith(
        ", sparse-gpt, Unstructured Sparsity 50%: 80.00 -> 77.00 %, lost 3.00 points; 1 more row fails"
    )
    assert empty == ""
    header = [cell.strip() for cell in head.strip("|").split("|")]
    assert header == [
        "Verdict", "Model", "Algorithm", "Config", "On", "Check", "Baseline", "Run", "Difference", "90 % Interval", "p",
        "p of 4", "Would Have Seen",
    ]  # fmt: skip
    (worse,) = (line for line in text.splitlines() if line.startswith("| worse"))
    cells = [cell.strip() for cell in worse.strip("|").split("|")]
    assert cells[4:] == [
        "-", "accuracy, %", "80.00", "77.00", "-3.00 points", "-4.02 to -2.23", "< 0.0001", "< 0.0001", "1.69 points",
    ]  # fmt: skip
    assert re.search(r"\| same +\| resnet50", text)
    assert "size" not in text  # the same everywhere
    assert "not comparable: data set: imagefolder:x (ffffffff) -> imagefolder:x (eeeeeeee) [other data, " in text
    assert text.splitlines()[-1].startswith("gate failed: 1 worse, 1 missing, 1 not comparable, 1 cannot tell, 1 new")
    assert text.splitlines()[-1].endswith("; 4 tests at 5 % for all together (Holm)")


def test_json_holds_every_row_and_check(report):
    content = json.loads(as_json(report))
    assert (content["exit_code"], content["tests"], content["alpha"]) == (1, 4, 0.05)
    worse = content["rows"][0]
    assert (worse["model"], worse["verdict"], worse["fails"]) == ("a: 100%, <worse>\x07", "worse", True)
    assert [check["metric"] for check in worse["checks"]] == ["accuracy", "size", "sparsity"]
    assert worse["checks"][0]["effect"] == pytest.approx(-3)
    assert {row["verdict"] for row in content["rows"]} == {*content["counts"]}


def test_junitparser_reads_the_xml(report):
    suites = junitparser.JUnitXml.fromstring(as_junit(report).encode())
    (suite,) = suites
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (7, 2, 1, 2)
    results = {case.name: [type(result).__name__ for result in case.result] for case in suite}
    assert list(results.values()) == [
        ["Failure"],
        ["Failure"],
        ["Error"],
        ["Skipped"],
        ["Skipped"],
        [],
        [],
    ]
    worse = next(iter(suite))
    assert worse.name == "accuracy: a: 100%, <worse>\\x07, sparse-gpt, Unstructured Sparsity 50%"
    assert worse.result[0].type == "worse"
    assert worse.result[0].text.startswith(
        "accuracy worse: 80.00 -> 77.00 %, -3.00 points (-4.02 to -2.23), p < 0.0001 (corrected < 0.0001)"
    )
    assert "latency same" in list(suite)[-1].system_out


def test_github_annotations_are_workflow_commands(report):
    """By the grammar of actions/runner: ::command key=value,key=value::data, with what would break it escaped."""
    commands = [re.fullmatch(r"::(error|warning) title=([^:,\r\n]*)::(.*)", line) for line in
                as_github_annotations(report).splitlines()]  # fmt: skip
    assert all(commands)
    assert [command[1] for command in commands] == ["error", "error", "warning", "warning"]
    title = commands[0][2].replace("%3A", ":").replace("%2C", ",").replace("%25", "%")
    assert title == "worse: a: 100%, <worse>\\x07, sparse-gpt, Unstructured Sparsity 50%"
    assert commands[0][3].startswith("accuracy worse: 80.00 -> 77.00 %25, -3.00 points")
    assert commands[0][3].count("%0A") == 2


def test_the_github_summary_counts_what_is_the_same_and_shows_the_rest(report):
    text = as_github_summary(report)
    assert "\n\ngate failed: 1 worse" in text
    assert "| ❌ worse" in text
    assert "| same" not in text


def test_names_that_are_markdown_or_commands_stay_text():
    evil = "::error::|`x`\n# <b>[l](u)%0A\x1b[31m"
    rows = from_records([accuracy_record(bits()[0], model=evil)], [])
    report = gate(rows, from_records([accuracy_record(bits(lost=30)[1], model=evil, created="2026-01-02")], []))
    missing = gate(rows, from_records([accuracy_record(bits()[0], model="other")], []))
    for one in (report, missing):
        summary = as_github_summary(one)
        assert len([line for line in summary.splitlines() if line.startswith("#")]) == 1
        tokens = MarkdownIt("commonmark").enable("table").parse(summary)
        inline = [child for token in tokens for child in token.children or ()]
        assert {child.type for child in inline} <= {"text", "text_special", "code_inline"}
        assert "::error::|`x` # <b>[l](u)%0A\\x1b[31m" in "\n".join(
            "".join(child.content for child in token.children or ()) for token in tokens if token.type == "inline"
        )
        (command,) = as_github_annotations(one).splitlines()
        assert "%250A" in command
        assert "\x1b" not in as_table(one) + summary + command + as_junit(one)
        ET.fromstring(as_junit(one))


# --- the command


@pytest.fixture
def old_and_new(tmp_path):
    """A baseline file, and a results folder with a loss of 3 points."""
    before, after = bits(lost=30)
    write_baseline(tmp_path / "baseline.json", from_records([accuracy_record(before)]))
    return tmp_path / "baseline.json", write_records(tmp_path / "run", accuracy_record(after, created="2026-01-02"))


def test_a_gate_on_the_command_line(run_bench, old_and_new, tmp_path, monkeypatch):
    old, new = old_and_new
    arguments = ("gate", "--baseline", old, "--results", new)
    code, output, errors = run_bench(*arguments)
    assert (code, errors) == (1, "")
    assert "| worse " in output
    rules = tmp_path / "gate.toml"
    rules.write_text("[accuracy]\nallowed_loss = 5\n")
    assert run_bench(*arguments, "--rules", rules)[0] == 0
    assert json.loads(run_bench(*arguments, "--format", "json")[1])["counts"] == {"worse": 1}
    assert junitparser.JUnitXml.fromstring(run_bench(*arguments, "--format", "junit")[1].encode()).failures == 1
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert "## Gate" in run_bench(*arguments, "--format", "github")[1]
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    output = run_bench(*arguments, "--format", "github")[1]
    assert (output.startswith("::error "), "## Gate" in output) == (True, False)
    assert "## Gate" in (tmp_path / "summary").read_text()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "nowhere" / "summary"))
    code, output, errors = run_bench(*arguments, "--format", "github")
    assert (code, output.startswith("::error "), "nowhere" in errors) == (2, True, True)


def test_saving_listing_showing_and_comparing_baselines(run_bench, refused, old_and_new, tmp_path):
    old, new = old_and_new
    code, output, _ = run_bench("baseline", "save", tmp_path / "new_baseline.json", "--results", new)
    assert (code, output.count("1 rows")) == (0, 1)
    assert "exists; --force replaces it" in refused("baseline", "save", old, "--results", new)
    assert run_bench("gate", "--baseline", tmp_path / "new_baseline.json", "--results", new)[0] == 0
    (tmp_path / "bad_baseline.json").write_text("{")
    (tmp_path / "._bad_baseline.json").write_bytes(b"\0")  # as macOS writes it on some disks
    listed = json.loads(run_bench("baseline", "list", tmp_path, "--json")[1])
    assert [(Path(one["file"]).name, one["accuracy_rows"]) for one in listed] == [
        ("bad_baseline.json", None), ("baseline.json", 1), ("new_baseline.json", 1),
    ]  # fmt: skip
    (row,) = json.loads(run_bench("baseline", "show", old, "--json")[1])
    assert (row["model"], row["top1_percent"]) == ("resnet50", 80)
    found = json.loads(run_bench("baseline", "diff", old, new, "--json")[1])
    assert [(one["what"], one["first"], one["second"]) for one in found] == [
        ("top1_percent", 80, 77), ("images that only one gets right", None, 30),
    ]  # fmt: skip
    assert run_bench("baseline", "diff", old, old)[1] == "none\n"


def test_bad_input_is_one_line_and_exit_code_2(refused, old_and_new, tmp_path):
    old, new = old_and_new

    def refused_gate(**changed):
        options = {"baseline": old, "results": new, **changed}
        return refused("gate", *(part for name, value in options.items() for part in (f"--{name}", value)))

    assert "git says" in refused_gate(baseline="nowhere")
    (tmp_path / "empty").mkdir()
    assert "no records in" in refused_gate(results=tmp_path / "empty")
    (tmp_path / "gate.toml").write_text('[[override]]\nmodel = "resnet5"\n')
    assert "no row has model 'resnet5'; did you mean 'resnet50'?" in refused_gate(rules=tmp_path / "gate.toml")
    half = tmp_path / "half.json"
    half.write_text(old.read_text()[:200])
    assert "half.json is not a baseline" in refused_gate(baseline=half)
    half.write_text('{"schema_version": 7}')
    assert "is a baseline of schema 7, which this version cannot read" in refused_gate(baseline=half)
    record = next((new / "records").iterdir())
    record.write_text(record.read_text()[:500])
    assert "is not a record: " in refused_gate()
    timed = latency_record(noisy_rounds(2e6))
    record.unlink()
    (new / "latency").mkdir()
    (new / "latency" / timed.file_name).write_text(timed.to_json().replace('"call_ns":[', '"call_ns":[NaN,'))
    assert "finite number" in refused_gate()


def test_rows_that_cannot_be_compared_are_exit_code_2(run_bench, old_and_new, tmp_path):
    other = accuracy_record(bits()[0], data={"fingerprint": "e" * 64})
    code, output, _ = run_bench("gate", "--baseline", old_and_new[0], "--results", write_records(tmp_path / "o", other))
    assert code == 2
    assert "gate could not be evaluated" in output


def test_a_gate_imports_neither_torch_nor_coremltools_nor_scipy_stats(old_and_new):
    code = (
        "import sys; sys.argv = ['run_bench', 'gate', '--baseline', sys.argv[1], '--results', sys.argv[2]]\n"
        "from coreml_prune_bench.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 1\n"
        "assert not {'torch', 'coremltools', 'onnxruntime', 'scipy.stats', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, old_and_new)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "gate failed: 1 worse" in done.stdout


# --- the records of the ImageNet sample, which are part of the project


def test_the_sample_against_itself_is_the_same(run_bench):
    sample = ROOT / "results" / "imagenet-sample"
    content = json.loads(run_bench("gate", "--baseline", sample, "--results", sample, "--format", "json")[1])
    assert content["counts"] == {"same": 21}


def test_half_sparse_networks_are_worse_than_dense_ones_with_sign_and_size(run_bench):
    sample = ROOT / "results" / "imagenet-sample"
    code, output, _ = run_bench(
        "gate", "--baseline", sample, "--results", sample, "--against-dense", "--format", "json"
    )
    assert code == 1
    rows = {
        (row["model"], row["algorithm"], row["config"]): row["checks"][0]
        for row in json.loads(output)["rows"]
        if row["config"] == "Unstructured Sparsity 50%"
    }
    assert {check["verdict"] for check in rows.values()} == {"worse"}
    # From the table in results/imagenet-sample/README.md: 77.86 less 80.57, 41.71 less 83.43, 38.14 less 78.43
    gpt = {model: check["effect"] for (model, algorithm, _), check in rows.items() if algorithm == "sparse-gpt"}
    assert gpt == pytest.approx({"resnet50": -2.71, "mobilenet_v2": -41.72, "mobilenet_v3_small": -40.29}, abs=0.02)
    assert all(check["low"] < check["effect"] < check["high"] < 0 for check in rows.values())
