"""The page: what it shows follows from the records, and what the command writes."""

import csv
import html
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import PIL.Image
import pytest
from scipy.stats import binomtest

from coreml_prune_bench.bench.suite import shipped_suites
from coreml_prune_bench.records.accuracy import Record, read_records
from coreml_prune_bench.records.latency import (
    IDLE_SECONDS,
    Memory,
    Wake,
    write_latency_record,
)
from coreml_prune_bench.records.statistics import score_interval
from coreml_prune_bench.report import drawn
from coreml_prune_bench.report.answer import answers
from coreml_prune_bench.report.config_rows import config_rows
from coreml_prune_bench.report.looks import color
from coreml_prune_bench.report.page import figure, page
from tests.factories import accuracy_record, four_images, four_images_dense, write_records
from tests.report.samples import ROOT, SAMPLE, Page, latencies, sensitivity

LATENCY_HEADERS = (
    "Package",
    "Median (ms)",
    "95 % Interval",
    "p90 (ms)",
    "p99 (ms)",
    "Predictions",
    "Rounds",
    "Remarks",
)


@pytest.fixture(scope="module")
def sample_page() -> str:
    return page(read_records(SAMPLE), [], shipped_suites=shipped_suites())


def test_the_page_needs_nothing_from_outside(sample_page):
    parsed = Page(sample_page)
    addresses = [attributes[name] for _, attributes in parsed.tags for name in ("src", "href") if name in attributes]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert not {tag for tag, _ in parsed.tags} & {"link", "img", "iframe", "object"}
    without_scripts = re.sub(r"<script.*?</script>", "", sample_page, flags=re.DOTALL)
    assert re.findall(r"url\((?!#)", without_scripts) == []
    assert "@import" not in without_scripts
    assert len(sample_page.encode()) < 2_000_000
    policy = next(a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_the_same_records_give_the_same_page(sample_page):
    assert page(read_records(SAMPLE), [], shipped_suites=shipped_suites()) == sample_page


def test_the_pages_tables_are_those_of_the_command(run_bench, sample_page):
    tables = [table for table in Page(sample_page).tables if table[0][0] == "Model Name"]
    for table, arguments in zip(tables, ([], ["--kind", "size"], ["--compare", "published"]), strict=True):
        _, output, _ = run_bench("table", "--results", SAMPLE, *arguments)
        lines = [line for line in output.splitlines() if line.startswith("| ")]
        expected = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        size = "Weights (MB)" in table[0]  # beside the accuracy, on the page alone
        assert [row[: -1 - size] for row in table] == expected


def test_every_measured_row_is_a_mark_with_its_numbers(sample_page):
    told = Page(sample_page).details()
    records = [r for r in read_records(SAMPLE) if r.predictions]
    assert len(told) == len(records)
    for one in records:
        assert one.predictions
        hit = [t for t in told if t.startswith(one.network.title) and f"\n{one.pruning.config}\n" in t]
        assert any(f"top-1 {100 * one.predictions.top1:.2f} ±" in text for text in hit)


def test_sparsity_by_layer_is_the_records(sample_page):
    by_layer = [table for table in Page(sample_page).tables if table[0][0] == "Layer"]
    assert len(by_layer) == 3
    wanted = ("resnet50", "sparse-gpt", "Unstructured Sparsity 50%")
    half = next(r for r in read_records(SAMPLE) if (r.network.name, r.pruning.algorithm, r.pruning.config) == wanted)
    table = next(t for t in by_layer if any(row[0] == "layer1.0.conv1" for row in t))
    column = table[0].index("SparseGPT: 50%")
    assert half.package
    expected = {layer.name: f"{100 * layer.sparsity:.1f}" for layer in half.package.layers}
    assert {row[0]: row[column] for row in table[1:]} == expected


def test_sensitivity_by_layer_is_charted_and_tabled():
    parsed = Page(page([four_images()], [], [sensitivity()], shipped_suites=()))
    (table,) = [table for table in parsed.tables if "75 %: error" in table[0]]
    assert table[1] == ["features.0.0", "1,000", "0.5000", "0.7500", "-", "75.0", "62.5", "55.0"]
    assert len(table) == 21
    assert "features.19.0 at 75 %\nerror 0.0375\ntop-1 62.5 %" in parsed.details()


def test_each_row_leads_to_the_commands_that_make_it(sample_page):
    parsed = Page(sample_page)
    places = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    links = [attributes["href"][1:] for tag, attributes in parsed.tags if tag == "a"]
    assert len(links) == 3 * 21
    assert set(links) <= places
    (resnet,) = {line for line in parsed.commands() if "resnet50" in line and "sparse-gpt" in line}
    assert resnet == (
        "python run_bench.py run --suite imagenet --models resnet50 --data imagefolder:../shared/data/imagenet-sample "
        "--weights DIR --algorithms sparse-gpt"
    )
    assert "DIR/resnet50.pth has the SHA-256" in parsed.text


def test_commands_say_what_a_record_knows():
    trials = [four_images(suite="own suite", trial=trial) for trial in range(2)]
    data = (
        four_images().data.model_copy(update={"skipped": ("val/a b.jpg",), "spec": "imagefolder:my data"}).model_dump()
    )
    commit = four_images().provenance.model_copy(update={"git_commit": "a" * 40 + "+"}).model_dump()
    published = four_images().network.model_copy(update={"weights": "as published"}).model_dump()
    shown = [*trials, four_images(data=data, provenance=commit, suite="t", network=published)]
    parsed = Page(page(shown, [], shipped_suites=["quick"]))
    assert "python run_bench.py fetch-published" in parsed.commands()
    assert any("--suite 'own suite.toml'" in line and line.endswith("--trials 2") for line in parsed.commands())
    assert any("--data 'imagefolder:my data'" in line and "--skip-bad-images" in line for line in parsed.commands())
    assert f"git checkout {'a' * 40}  # with uncommitted changes" in parsed.text


def test_names_that_look_like_markup_stay_text():
    evil = '<script>alert("1")</script>&"\''
    network = four_images().network.model_copy(update={"title": evil}).model_dump()
    pruning = four_images().pruning.model_copy(update={"config": evil, "title": evil}).model_dump()
    parsed = Page(page([four_images(network=network, pruning=pruning)], [], shipped_suites=()))
    assert [tag for tag, _ in parsed.tags].count("script") == 2 + len(parsed.charts)
    assert parsed.tables[0][1][1:3] == [evil, evil]
    assert parsed.tables[1][1][:2] == [evil, evil]
    ET.fromstring(drawn.svg(figure([four_images(network=network, pruning=pruning)], [])))


def test_a_foreign_records_commands_do_what_they_say_and_nothing_else(tmp_path):
    """In a shell, where every program that they name only tells its words."""
    evil = f"x'\n$(touch {tmp_path}/run)`touch {tmp_path}/run`;touch {tmp_path}/run #\x1b[201~\r"
    first = four_images()
    there = first.provenance.model_dump() | {"os": evil, "python": evil, "packages": {"coreml-prune-bench": evil}}
    network = first.network.model_dump() | {"name": evil, "spec": None, "weights": "a" * 64}
    other = first.network.model_dump() | {"name": "own", "spec": f"--help{evil}"}
    data, pruning = first.data.model_dump() | {"spec": evil}, first.pruning.model_dump() | {"algorithm": evil}
    shown = [
        four_images(suite=evil, network=network, data=data, pruning=pruning, provenance=there | {"git_commit": None}),
        four_images(suite=f"--{evil}", network=other, provenance=there | {"git_commit": f"--{evil}"}),
    ]
    shells = re.findall("<pre tabindex[^>]*>(.*?)</pre>", page(shown, [], shipped_suites=()), re.DOTALL)
    lines = [line for shell in shells for line in html.unescape(shell).split("\n")]
    assert all(line.isprintable() for line in lines)
    tell = "".join(f'{name}() {{ printf "%s\\0" "$@"; }}\n' for name in ("git", "pip", "python", "coreml-prune-bench"))
    script = tell.encode() + "\n".join(lines).encode("utf-8", "surrogateescape")
    done = subprocess.run(["bash"], input=script, capture_output=True, check=True, cwd=tmp_path)
    words = done.stdout.decode("utf-8", "surrogateescape").split("\0")
    assert {evil, f"{evil}.toml", f"--suite=--{evil}.toml", f"--model=--help{evil}"} <= {*words}
    assert f"coreml-prune-bench[all]=={evil}" in words
    assert "checkout" not in words
    assert done.stderr == b""
    assert list(tmp_path.iterdir()) == []


def test_a_label_of_several_lines_is_drawn(tmp_path):
    network = four_images().network.model_copy(update={"title": "a\nb\x00\x1b[31m\ud83d"}).model_dump()
    pruning = four_images().pruning.model_copy(update={"config": "two\nlines\x0c|<b>"}).model_dump()
    records = [four_images(network=network, pruning=pruning)]
    drawing = figure(records, [])
    assert drawn.png(drawing).startswith(b"\x89PNG")
    svg = ET.fromstring(drawn.svg(drawing))
    assert "a b\\x00\\x1b[31m\\ud83d" in set(svg.itertext())
    assert any("two\nlines\\x0c|<b>" in (one.get("aria-label") or "") for one in svg.iter())
    assert "\x1b" not in page(records, [], shipped_suites=())


def test_what_failed_is_told_with_its_reason():
    failed = four_images(status="failed", reason="too sparse\nTraceback", package=None, predictions=None, runtime=None)
    text = Page(page([four_images_dense(), failed], [], shipped_suites=())).text
    assert "ResNet50, MagnitudePruner, Unstructured Sparsity 50%, trial 1: too sparse" in text
    assert "Traceback" not in text


def test_latency_is_the_samples_by_device_and_compute_units():
    one, other = latencies([1_000_000, 1_100_000, 1_300_000]), latencies([2_000_000] * 3, units="cpu_only")
    parsed = Page(page([four_images_dense(), four_images()], [one, other], shipped_suites=()))
    tables = [table for table in parsed.tables if table[0][0] == "Package"]
    assert [table[1][:2] for table in tables] == [["ResNet50, half", "1.100"], ["ResNet50, half", "2.000"]]
    assert "a Mac, macOS 15, coreml, cpu_only" in parsed.text
    assert "Latency" not in Page(page([four_images_dense()], [], shipped_suites=())).text


def test_what_was_measured_besides_latency_has_columns_of_its_own():
    one = latencies([1_000_000, 1_100_000, 1_300_000])
    wake = tuple(Wake(idle_s=idle_s, call_ns=(round(idle_s * 1e7) + 1,), model_ns=None) for idle_s in IDLE_SECONDS)
    woken = one.model_copy(
        update={"wake": wake, "memory": Memory(load_peak_bytes=40 << 20, predict_peak_bytes=55 << 20)}
    )
    for records, headers in ([one], []), ([woken], ["Wakes after 1, 5, 30 s", "Peak Memory, MiB"]):
        parsed = Page(page([four_images_dense()], records, shipped_suites=()))
        (table,) = [table for table in parsed.tables if table[0][0] == "Package"]
        found = dict(zip(*table, strict=True))
        assert [name for name in found if name not in LATENCY_HEADERS] == headers
    assert (found[headers[0]], found[headers[1]]) == ("10.0, 50.0, 300.0", "40, 55")


@pytest.fixture
def results(tmp_path) -> Path:
    (tmp_path / "results" / "records").mkdir(parents=True)
    for one in (four_images_dense(), four_images()):
        (tmp_path / "results" / "records" / f"{one.key}.json").write_text(one.to_json())
    write_latency_record(tmp_path / "results", latencies([1_000_000, 1_200_000]))
    return tmp_path / "results"


def test_charts_alone_as_svg_and_png(run_bench, results, tmp_path):
    for format in ("svg", "png"):
        code, output, errors = run_bench("report", tmp_path / f"c.{format}", "--results", results)
        assert (code, output.strip()) == (0, str(tmp_path / f"c.{format}")), errors
    drawing = ET.parse(tmp_path / "c.svg").getroot()
    text = " ".join(drawing.itertext())
    assert "ResNet50" in text
    assert "not pruned" in text
    assert "a Mac, macOS 15, coreml, all" in text
    with PIL.Image.open(tmp_path / "c.png") as image:
        size = tuple(2 * float(drawing.get(name) or 0) for name in ("width", "height"))
        assert image.size == pytest.approx(size, abs=2)
        colors = {ink for _, ink in image.convert("RGB").getcolors(1 << 24)}
    for series in range(2):  # marks are there, in the middle of their smoothed edges
        assert tuple(bytes.fromhex(color(series)[1:])) in colors


def test_an_existing_file_is_kept(run_bench, refused, results, tmp_path):
    (tmp_path / "r.html").write_text("mine")
    assert "r.html exists; --force replaces it" in refused("report", tmp_path / "r.html", "--results", results)
    assert (tmp_path / "r.html").read_text() == "mine"
    assert run_bench("report", tmp_path / "r.html", "--results", results, "--force")[0] == 0
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "results"]


def test_a_place_that_is_none_and_records_that_are_not_there(refused, results, tmp_path):
    assert "is not a folder" in refused("report", tmp_path / "nowhere" / "r.html", "--results", results)
    assert "expected the name of a file" in refused("report", tmp_path, "--results", results)
    assert "no records in" in refused("report", tmp_path / "r.html", "--results", tmp_path)


def test_nothing_measured_is_nothing_to_draw(refused, run_bench, tmp_path):
    failed = four_images(status="failed", reason="r", package=None, predictions=None, runtime=None)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "one.json").write_text(failed.to_json())
    assert "there is nothing to draw" in refused("report", tmp_path / "c.svg", "--results", tmp_path)
    assert run_bench("report", tmp_path / "r.html", "--results", tmp_path)[0] == 0
    assert "What failed" in (tmp_path / "r.html").read_text()


def test_without_the_library_that_draws_it_is_a_page_of_tables_that_says_so(
    run_bench, refused, results, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    code, _, errors = run_bench("report", tmp_path / "r.html", "--results", results)
    assert (code, errors.count("\n")) == (0, 1)
    assert "pip install 'coreml-prune-bench[charts]'" in errors
    parsed = Page((tmp_path / "r.html").read_text())
    assert "pip install\n'coreml-prune-bench[charts]'" in parsed.text
    assert (parsed.charts, "Accuracy against size" in parsed.text) == ([], False)
    assert len(parsed.tables) >= 3
    assert (tmp_path / "r.html").stat().st_size < 100_000
    assert "coreml-prune-bench[charts]" in refused("report", tmp_path / "r.svg", "--results", results)


def test_a_report_imports_neither_torch_nor_coremltools(results, tmp_path):
    code = (
        "import sys; sys.argv[1:] = ['report', sys.argv[1], '--results', sys.argv[2]]\n"
        "from coreml_prune_bench.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'coremltools', 'onnxruntime', 'matplotlib', 'pandas'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "r.html"), str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- the answer, and packages


def record_of(right: int, weight_bytes: int, config: str, algorithm: str = "sparse-gpt", **changes: Any) -> Record:
    """Of 1,000 images, the first `right` are."""
    record = accuracy_record(
        [n < right for n in range(1000)], algorithm=algorithm, weight_bytes=weight_bytes, **changes
    )
    return record.model_copy(update={"pruning": record.pruning.model_copy(update={"config": config})})


def test_the_answer_is_the_smallest_package_within_a_point_and_two_and_the_best_at_each_size():
    """By hand: dense 800 of 1,000; 795 lose 0.5 points, 785 lose 1.5, 700 lose 10."""
    records = [
        record_of(800, 4_000_000, "Float16", "dense", sparsity=0.0),
        record_of(795, 3_000_000, "A", key="a", config_key="a"),
        record_of(785, 2_000_000, "B", key="b", config_key="b"),
        record_of(790, 2_500_000, "C", key="c", config_key="c"),
        record_of(780, 2_600_000, "behind", key="d", config_key="d"),
        record_of(700, 1_000_000, "E", key="e", config_key="e"),
    ]
    (answer,) = answers(config_rows(records))
    told = [(choice.asked, choice.row.config) for choice in answer.choices]
    assert told == [
        ("smallest within 1 point, perhaps more", "C"),
        ("smallest within 2 points, perhaps more", "B"),
        ("best up to 1.00 MB", "E"),
        ("best up to 2.00 MB", "B"),
        ("best up to 2.50 MB", "C"),
        ("best up to 3.00 MB", "A"),
        ("best up to 4.00 MB", "Float16"),
    ]
    smallest = answer.choices[0]
    low, high = score_interval(10, 0, 1000, 0.025)
    assert smallest.loss == pytest.approx((0.01, -high, -low))
    assert smallest.top1.effect == 0.79
    exact = binomtest(790, 1000).proportion_ci(0.95, method="exact")
    assert (smallest.top1.low, smallest.top1.high) == pytest.approx((exact.low, exact.high))
    assert answer.missing == []


def test_what_no_package_does_is_said():
    dense = record_of(800, 4_000_000, "Float16", "dense", sparsity=0.0)
    (answer,) = answers(config_rows([dense, record_of(700, 1_000_000, "E")]))
    assert answer.missing == ["No package loses at most 1 point.", "No package loses at most 2 points."]
    (alone,) = answers(config_rows([record_of(700, 1_000_000, "E")]))
    assert "no dense package was measured" in alone.missing[0]
    text = Page(page([dense, record_of(700, 1_000_000, "E")], [], shipped_suites=())).text
    assert "Which package to take" in text
    assert "No package loses at most 2 points." in text


def test_rows_lead_to_packages_that_are_there(tmp_path, run_bench):
    results, out = tmp_path / "my results", tmp_path / "pages" / "report.html"
    out.parent.mkdir()
    places = ["artifacts/0a/net a.mlpackage", "../outside.mlpackage", "artifacts/none/net.mlpackage"]
    (results / places[0]).mkdir(parents=True)
    (tmp_path / "outside.mlpackage").mkdir()
    records = []
    for number, place in enumerate(places):
        record = record_of(700 + number, 1_000_000, f"c{number}", key=f"k{number}", config_key=f"k{number}")
        records.append(record.model_copy(update={"package": record.package.model_copy(update={"path": place})}))
    write_records(results, *records)
    code, _, errors = run_bench("report", out, "--results", results)
    assert code == 0, errors
    parsed = Page(out.read_text())
    links = {a["href"] for tag, a in parsed.tags if tag == "a" and not a["href"].startswith("#")}
    assert links == {"./../my%20results/artifacts/0a/net%20a.mlpackage"}
    assert (out.parent / unquote(links.pop())).is_dir()


def test_latency_and_size_stand_beside_accuracy():
    timed = latencies([1_000_000, 1_100_000, 1_050_000])
    first = record_of(700, 1_234_567, "E")
    package = first.package.model_copy(update={"sha256": timed.package.sha256})
    tables = Page(page([first.model_copy(update={"package": package})], [timed], shipped_suites=())).tables
    head, row = tables[1]
    header = f"Latency (ms), {timed.device.name}, {timed.runtime.compute_units}"
    assert (row[head.index("Weights (MB)")], row[head.index(header)]) == ("1.23", "1.050")
    head, row = tables[0]
    assert (row[head.index("MB")], row[head.index(header)]) == ("1.23", "1.050")


@pytest.mark.skipif(shutil.which("node") is None, reason="no JavaScript outside of a browser")
def test_csv_has_what_the_table_shows(sample_page):
    function = re.search(r"function csvOf\(table\) {\n.*?\n}\n", sample_page, re.DOTALL)
    texts = [["Config", "Lost", "How"], ['a, "b"', "-1.5", "commands"], ["=1+1", "-", ""]]
    program = f"""{function[0]}
    const cell = (text, place) => ({{ textContent: text, classList: {{ contains: () => place === 2 }} }});
    const rows = {json.dumps(texts)}.map((row) => ({{ cells: row.map(cell) }}));
    process.stdout.write(csvOf({{ rows }}));"""
    done = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True)
    assert list(csv.reader(done.stdout.splitlines())) == [["Config", "Lost"], ['a, "b"', "-1.5"], ["'=1+1", "-"]]
