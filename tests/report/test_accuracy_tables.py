"""Tables: numbers worked out by hand and from the committed records, the newest state of each cell, and no torch."""

import json
import re
import subprocess
import sys
from io import StringIO
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.records.accuracy import GIVEN, Record, read_records
from coreml_prune_bench.report.accuracy_tables import render, render_comparison, rows
from coreml_prune_bench.report.answer import answers
from coreml_prune_bench.report.compact import render_compact
from coreml_prune_bench.report.config_rows import config_rows
from tests.factories import four_images as record
from tests.factories import four_images_dense as dense

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "results" / "imagenet-sample"


def test_mean_sample_deviation_and_ratio_worked_out_by_hand():
    # 25, 50 and 75 %: mean 50; deviations -25, 0, 25; sample variance (625 + 0 + 625) / 2 = 625
    trials = [record(correct=correct, trial=trial) for trial, correct in enumerate((1, 2, 3))]
    baseline, pruned = rows([dense(), *trials])
    assert (baseline["top1_mean"], baseline["top1_std"], baseline["compression_ratio"]) == (100, None, 1)
    assert (pruned["top1_mean"], pruned["top1_std"]) == (50, 25)
    assert pruned["compression_ratio"] == 2
    assert pruned["top5_mean"] == 100
    assert (pruned["trials"], pruned["images"], pruned["runtime"]) == (3, 4, "portable")


def test_a_dense_network_that_another_suite_measured_counts_where_the_row_s_own_has_none():
    own = dense(suite="b", weight_bytes=2000)
    assert [row["compression_ratio"] for row in rows([dense(suite="a"), record(suite="b")])] == [1, 2]
    assert [row["compression_ratio"] for row in rows([dense(suite="a"), record(suite="b"), own])] == [1, 1, 4]


def test_json_rows_have_the_stable_names():
    (_, row) = json.loads(render([dense(), record()], format="json"))
    promised = (
        "model config algorithm sparsity compression_ratio top1_mean top1_std trials images runtime "
        "scope whole_model_sparsity"
    )
    assert set(promised.split()) <= row.keys()
    assert (row["model"], row["algorithm"], row["sparsity"]) == ("resnet50", "magnitude-pruner", 0.5)


def test_the_readable_table_has_the_published_columns_first():
    text = render([dense(), record(correct=1), record(correct=3, trial=1)])
    header = next(line for line in text.splitlines() if line.startswith("|"))
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert columns[:5] == ["Model Name", "Config", "Optimization Algorithm", "Compression Ratio", "Accuracy"]
    assert columns[5:] == ["Pruned Scope", "Whole-Model Sparsity", "Images", "Standard Error", "Runtime"]
    assert "| 50.00 ± 35.36 |" in text  # 25 and 75: sqrt(2 * 625 / 1)
    assert "not Core ML's" in text


def test_the_published_ratio_stands_beside_ours():
    text = render([dense(), record(weight_bytes=571)], "size")
    assert "| 1.751 " in text  # 1000 / 571
    assert "| 1.77 " in text
    assert "| -0.019 " in text


def test_no_published_ratio_for_a_network_with_another_head():
    data = record().data.model_copy(update={"classes": 10})
    assert rows([record(data=data.model_dump())])[0]["published_compression_ratio"] is None


def test_the_standard_error_is_binomial_over_images_whatever_the_trials():
    # p = 3/4 of n = 4 images: sqrt(0.75 * 0.25 / 4) = 0.21651
    (one,) = rows([record(correct=3)])
    assert one["top1_stderr"] == pytest.approx(21.651, abs=1e-3)
    # p = 1/2 on average of two trials over the same 4 images: sqrt(0.5 * 0.5 / 4) = 0.25
    (two,) = rows([record(correct=1), record(correct=3, trial=1)])
    assert two["top1_stderr"] == pytest.approx(25)
    assert "| 21.65 " in render([record(correct=3)])


# --- beside the published table (ResNet50: 76.14; 50 %: 73.64 ± 0.04, ratio 1.77; 75 %: 73.40 ± 0.08, ratio 3.17)


def comparison(records: list[Record]) -> list[dict]:
    return json.loads(render_comparison(records, "json"))


def test_differences_are_ours_minus_the_published():
    table = comparison(
        [
            dense(predictions=full_predictions(right_of_four=4)),
            record(predictions=full_predictions(right_of_four=3), weight_bytes=571),
        ]
    )
    baseline, half = (row for row in table if row["measured"])
    assert baseline["top1_difference"] == pytest.approx(100 - 76.14)
    assert baseline["compression_ratio_difference"] == 0
    assert (half["published_top1_mean"], half["published_top1_std"]) == (73.64, 0.04)
    assert half["top1_difference"] == pytest.approx(75 - 73.64)
    assert half["compression_ratio_difference"] == pytest.approx(1000 / 571 - 1.77)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "4 images"),
        ({"skipped": ["val/x.JPEG"]}, "4 images, 1 skipped"),
        ({"image_size": 128}, "images of 128 pixels"),
    ],
)
def test_no_difference_is_given_for_images_that_are_not_the_published_ones(changes, why):
    full = {"predictions": full_predictions(right_of_four=4)} if "image_size" in changes else {}
    one = dense(data=dense().data.model_dump() | changes, **full)
    (row,) = (row for row in comparison([one]) if row["measured"])
    assert (row["published_top1_mean"], row["top1_difference"], row["not_comparable"]) == (76.14, None, why)
    assert row["compression_ratio_difference"] == 0  # packages alone
    head = render_comparison([one]).splitlines()[0]
    assert f"no difference is given: {one.data.spec} has {why}." in head
    assert "+23.86" not in render_comparison([one])


def full_predictions(right_of_four: int) -> dict[str, object]:
    """Of ImageNet's 50 images of each of 1,000 classes, so many of four right."""
    labels = [label for label in range(1000) for _ in range(50)]
    best = [label if place % 4 < right_of_four else (label + 1) % 1000 for place, label in enumerate(labels)]
    return {"labels": labels, "top5": [[one] for one in best]}


def test_a_dense_network_that_only_guesses_is_told_in_the_caption():
    guessing = dense(predictions=predictions([3, 4, 5, 6]) | {"top5": [[9, 3, 4, 5, 6]] * 4})
    told = "WARNING: ResNet50 on imagefolder:x, dense: top-1 0.00 % of 4 images is not shown to be above chance (p = 1)"
    for text in (render([guessing, record()]), render([guessing], "size"), render_comparison([guessing])):
        assert ("WARNING" in text) == (told in text)
    assert told in render([guessing, record()])
    assert "WARNING" not in render([dense(), record(predictions=predictions([3, 4]) | {"top5": [[9], [9]]})])


def test_published_rows_that_nobody_measured_say_so_in_their_place():
    table = comparison([dense(), record()])
    absent = [(row["model_title"], row["sparsity"]) for row in table if not row["measured"]]
    others = [(model, sparsity) for model in ("MobileNetv2-1.0", "MobileNetv3-small") for sparsity in (0, 0.5, 0.75)]
    assert absent == [*others, ("ResNet50", 0.75)]
    assert [row["sparsity"] for row in table if row["model_title"] == "ResNet50"] == [0, 0.5, 0.75]
    assert {row["trials"] for row in table if not row["measured"]} == {0}
    text = render_comparison([dense(), record()])
    line = next(line for line in text.splitlines() if "| ResNet50 " in line and "75%" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:4] == ["ResNet50", "Unstructured Sparsity 75%", "MagnitudePruner", "not measured"]
    assert cells[4:9] == ["73.40 ± 0.08", "-", "-", "3.17", "-"]


def test_rows_without_a_counterpart_are_there_too():
    pruning = record().pruning.model_copy(update={"sparsity": 0.6, "config": "Unstructured Sparsity 60%"}).model_dump()
    table = comparison([record(pruning=pruning)])
    (row,) = (row for row in table if row["measured"])
    assert (row["published_top1_mean"], row["top1_difference"]) == (None, None)
    assert len(table) == 1 + 9
    assert "| Unstructured Sparsity 60% " in render_comparison([record(pruning=pruning)])


def test_a_network_with_another_head_stands_beside_the_published_one_and_the_caption_says_so():
    """Ratios are there to be seen; accuracies have nothing to do with each other."""
    other = record(data=record().data.model_copy(update={"classes": 200}).model_dump(), weight_bytes=571)
    (row,) = (row for row in comparison([dense(), other]) if row["measured"] and row["sparsity"] == 0.5)
    assert (row["published_top1_mean"], row["top1_difference"], row["not_comparable"]) == (73.64, None, "200 classes")
    assert row["published_compression_ratio"] == 1.77
    head = render_comparison([other]).splitlines()[0]
    assert f"no difference is given: {other.data.spec} has 200 classes. Ratios differ by the head, too" in head
    (alone,) = rows([other])  # in tables of sizes it has none
    assert alone["published_compression_ratio"] is None


def test_every_algorithm_stands_beside_the_same_published_row():
    pruning = record().pruning.model_copy(update={"algorithm": "sparse-gpt", "title": "SparseGPT"}).model_dump()
    other = record(algorithm="sparse-gpt", pruning=pruning)
    halves = [row for row in comparison([dense(), record(), other]) if row["measured"] and row["sparsity"] == 0.5]
    assert [row["algorithm"] for row in halves] == ["magnitude-pruner", "sparse-gpt"]
    assert {row["published_top1_mean"] for row in halves} == {73.64}


def predictions(labels: list[int]) -> dict[str, object]:
    return {"labels": labels, "top5": [[label, 1, 2, 3, 4] for label in labels]}


@pytest.mark.parametrize(
    ("labels", "is_full"),
    [
        ([label for label in range(1000) for _ in range(50)], True),
        ([label for label in range(1000) for _ in range(50)][:-1], False),  # 49,999 images
        ([label for label in range(500) for _ in range(100)], False),  # 50,000 images, but of 500 classes
        ([0, 1, 2], False),
    ],
)
def test_a_row_says_whether_it_was_measured_on_the_full_validation_set(labels, is_full):
    full = record(predictions=predictions(labels))
    assert rows([full])[0]["full_validation_set"] is is_full
    frame = pd.read_csv(StringIO(render_comparison([full], "csv")))
    assert frame[frame["measured"]]["full_validation_set"].tolist() == [is_full]
    text = render_comparison([full])
    header, _, *lines = [line for line in text.splitlines() if line.startswith("|")]
    column = [cell.strip() for cell in header.split("|")].index("Full Validation Set")
    shown = next(line for line in lines if "| MagnitudePruner " in line and "not measured" not in line)
    assert shown.split("|")[column].strip() == ("yes" if is_full else "no")
    assert f" & {'yes' if is_full else 'no'} " in render_comparison([full], "latex")


def test_a_failed_row_is_not_a_measured_one():
    failed = record(status="failed", reason="r", package=None, predictions=None, runtime=None)
    (row,) = (row for row in comparison([failed]) if row["suite"])
    assert (row["measured"], row["top1_mean"], row["full_validation_set"]) == (False, None, False)
    assert "| failed " in render_comparison([failed])


def test_the_size_table_counts_pruned_layers_by_their_storage():
    forms = ["sparse + palettized", "sparse", "sparse + palettized"]
    layers = [{"name": str(n), "target": 0.5, "sparsity": 0.5, "storage": form} for n, form in enumerate(forms)]
    package = record().package.model_dump() | {"layers": layers, "deployment_target": "iOS18 / macOS15"}
    records = [dense(), record(package=package)]
    assert [row["storage"] for row in rows(records)] == ["", "2 sparse + palettized, 1 sparse"]
    assert "| 2 sparse + palettized, 1 sparse | iOS18 / macOS15" in " ".join(render(records, "size").split())


def test_a_row_of_another_mode_has_no_published_counterpart():
    pruning = record().pruning.model_dump() | {"settings": {"n_m_ratio": [2, 4]}}
    assert rows([dense(), record(pruning=pruning)])[1]["published_compression_ratio"] is None


def test_suites_are_told_apart_where_there_are_several():
    assert "| Suite " not in render_comparison([dense()])
    text = render_comparison([dense(), dense(suite="t")])
    assert "| Suite " in text
    assert "| t " in text


def test_the_comparison_takes_no_kind(refused, tmp_path):
    assert "leave out --kind" in refused("table", "--compare", "published", "--kind", "size", "--results", tmp_path)


# --- the committed table, from its records' JSON and nothing of this project


def committed_tables() -> list[list[dict[str, str]]]:
    """The Markdown tables of the committed results, a row a dictionary."""
    tables, lines = [], (COMMITTED / "README.md").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|--"):
            names = [cell.strip() for cell in lines[number - 1].strip("|").split("|")]
            body = takewhile(lambda line: line.startswith("|"), lines[number + 1 :])
            tables.append([dict(zip(names, (c.strip() for c in r.strip("|").split("|")), strict=True)) for r in body])
    return tables


def rederived(row: dict[str, str], records: list[dict]) -> dict[str, str]:
    """All numbers that any table may show of the row's config, in the table's words."""
    of_network = [r for r in records if r["network"]["title"] == row["Model Name"]]
    key = (row["Config"], row["Optimization Algorithm"])
    trials = [r for r in of_network if (r["pruning"]["config"], r["pruning"]["title"]) == key]
    (baseline,) = (r for r in of_network if r["pruning"]["algorithm"] == "dense")
    best = np.array([[top5[0] for top5 in r["predictions"]["top5"]] for r in trials])  # [trials, images]
    top1 = 100 * (best == np.array(trials[0]["predictions"]["labels"])).mean(axis=1)
    p, images = top1.mean() / 100, best.shape[1]
    weight_bytes = np.mean([r["package"]["weight_bytes"] for r in trials])
    ratio = baseline["package"]["weight_bytes"] / weight_bytes
    published = pd.read_csv(ROOT / "harness" / "published" / "published_pruning.csv").set_index(["model", "config"])
    reference = published.loc[(row["Model Name"], row["Config"].split(",")[0])]
    difference = ratio - reference["compression_ratio"]
    spread = reference["top1_std"]
    layers = trials[0]["package"]["layers"]
    assert {layer["storage"] for layer in layers} <= {"sparse"}
    precise = row.keys() & {"Package (bytes)", "Published Accuracy"}
    return {
        "Accuracy": f"{top1.mean():.2f}" + (f" ± {top1.std(ddof=1):.2f}" if len(trials) > 1 else ""),
        "Standard Error": f"{100 * np.sqrt(p * (1 - p) / images):.2f}",
        "Images": f"{images:,}",
        "Published Accuracy": f"{reference['top1_mean']:.2f}" + ("" if np.isnan(spread) else f" ± {spread:.2f}"),
        # Of other images than ImageNet's whole validation set none is given.
        "Accuracy Difference": f"{top1.mean() - reference['top1_mean']:+.2f}" if images == 50_000 else "-",
        "Full Validation Set": "yes" if images == 50_000 else "no",
        "Compression Ratio": f"{ratio:.3f}" if precise else f"{ratio:.2f}",
        "Published Ratio": f"{reference['compression_ratio']:.2f}",
        "Difference": f"{difference:+.3f}",
        "Ratio Difference": f"{difference:+.3f}",
        "weight.bin (bytes)": f"{weight_bytes:,.0f}",
        "Package (bytes)": f"{np.mean([r['package']['package_bytes'] for r in trials]):,.0f}",
        "Whole-Model Sparsity": f"{100 * np.mean([r['package']['whole_model_sparsity'] for r in trials]):.1f} %",
        "Pruned Scope": trials[0]["pruning"]["scope"],
        "Pruned Layers": f"{len(layers)} sparse" if layers else "-",
        "Deployment Target": trials[0]["package"]["deployment_target"],
        "Runtime": trials[0]["runtime"]["name"],
        "Data": trials[0]["data"]["spec"],
    }


def test_every_number_of_the_committed_table_follows_from_its_records():
    tables = committed_tables()
    records = [json.loads(path.read_text()) for path in (COMMITTED / "records").glob("*.json")]
    configs = {(r["network"]["title"], r["pruning"]["config"], r["pruning"]["title"]) for r in records}
    assert len(tables) >= 2
    for table in tables:
        assert {(row["Model Name"], row["Config"], row["Optimization Algorithm"]) for row in table} == configs
        for row in table:
            numbers = rederived(row, records)
            shown = row.keys() - {"Model Name", "Config", "Optimization Algorithm"}
            assert {name: row[name] for name in shown} == {name: numbers[name] for name in shown}


def test_csv_and_json_hold_the_same_rows():
    records = [dense(), record()]
    frame = pd.read_csv(StringIO(render(records, format="csv")))
    assert frame["top1_mean"].tolist() == [row["top1_mean"] for row in json.loads(render(records, format="json"))]


def test_latex_is_a_booktabs_table():
    text = render([dense()], format="latex")
    assert "\\toprule" in text
    assert text.startswith("% Suite s")


def test_the_newest_version_of_a_config_counts_with_its_own_trials_alone():
    old = [record(correct=0, trial=trial, created="2026-01-01") for trial in range(3)]
    new = [record(correct=4, trial=0, created="2026-01-02")]
    (row,) = rows(new + old)
    assert (row["top1_mean"], row["trials"]) == (100, 1)


def test_records_of_other_weights_do_not_stand_beside_newer_ones():
    old = dense(created="2026-01-01", subject_key="old weights")
    (row,) = rows([record(created="2026-01-02"), old])
    assert row["algorithm"] == "magnitude-pruner"
    assert row["compression_ratio"] is None  # its baseline was not measured


def test_a_failed_trial_is_told_and_not_averaged():
    failed = record(trial=1, status="failed", reason="r", package=None, predictions=None, runtime=None)
    text = render([dense(), record(correct=3), failed])
    assert "75.00 (1 failed)" in text
    assert rows([failed])[0]["top1_mean"] is None
    assert "| failed " in render([failed])


def test_two_data_sets_of_one_suite_are_told_apart():
    data = record().data.model_copy(update={"spec": "imagefolder:turned"}).model_dump()
    text = render([dense(), record(data=data, subject_key="turned")])
    assert "| Data " in text
    assert "| imagefolder:turned |" in text


def given(config: str, network: str = "net", created: str = "2026-01-01", **data: object) -> Record:
    """Of a package that nobody built here; subjects differ as they would in what is said of its data."""
    brought = {"name": network, "title": network, "weights": GIVEN, "trained": False}
    one = record(network=brought, created=created, data=data)
    pruning = one.pruning.model_copy(update={"config": config})
    return one.model_copy(update={"pruning": pruning, "subject_key": f"{network}{data}", "config_key": config})


def test_rows_whose_images_were_prepared_otherwise_say_so():
    stretched = {"preprocessing": {"crop": "scaleFill"}}
    both = [given("a"), given("b", **stretched)]
    text = render(both)
    assert re.search(r"\| a .*\| center, bilinear +\|\n.*\| b .*\| scaleFill, bilinear +\|", text)
    assert "net, 4 images of imagefolder:x, scaleFill, bilinear\n" in render_compact(both, 80)
    titles = ["net on imagefolder:x, center, bilinear", "net on imagefolder:x, scaleFill, bilinear"]
    assert [one.title for one in answers(config_rows(both))] == titles
    # What each network sees is its own.
    apart = [given("a"), given("b", network="other", **stretched)]
    assert "scaleFill" not in render(apart) + render_compact(apart, 80)
    assert [one.title for one in answers(config_rows(apart))] == ["net on imagefolder:x", "other on imagefolder:x"]


def test_rows_of_other_images_of_one_folder_are_named():
    text = render([given("a"), given("b", created="2026-01-02", fingerprint="0" * 64)])
    assert "WARNING: net, a: measured on other images than those that imagefolder:x has in the newest rows." in text
    assert "other images" not in render([given("a"), given("b")])


def test_a_record_survives_writing_and_reading(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "one.json").write_text(record().to_json())
    assert read_records(tmp_path) == [record()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (record().to_json()[:300], "is not a record: "),
        (record().to_json().replace('"schema_version": 4', '"schema_version": 5'), "which this version cannot read"),
        ("{}", "it has no schema_version"),
    ],
)
def test_half_a_record_or_one_of_another_schema_is_named(tmp_path, text, message):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "bad.json").write_text(text)
    with pytest.raises(BenchError, match=message) as raised:
        read_records(tmp_path)
    assert "bad.json" in str(raised.value)


def test_an_empty_results_folder_says_what_was_expected(tmp_path):
    with pytest.raises(BenchError, match="no records in"):
        read_records(tmp_path)


def test_tables_import_neither_torch_nor_coremltools(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "one.json").write_text(record().to_json())
    code = (
        "import sys; sys.argv = ['run_bench', 'table', '--compare', 'published', '--results', sys.argv[1]]\n"
        "from coreml_prune_bench.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'coremltools', 'onnxruntime', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ResNet50" in done.stdout
