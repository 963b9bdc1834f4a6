"""Tables on terminals of 80, 120 and 200 columns: they fit, and nothing that they show is cut."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.console
from rich.cells import cell_len
from rich.console import Console

from coreml_prune_bench.cli import output
from coreml_prune_bench.core import progress
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.gating.baseline import from_records
from coreml_prune_bench.gating.limits import RuleSet
from coreml_prune_bench.gating.reports import as_table
from coreml_prune_bench.gating.verdicts import gate
from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.records.sensitivity import Sensitivity
from coreml_prune_bench.report import latency_tables, sensitivity
from coreml_prune_bench.report.accuracy_tables import render
from coreml_prune_bench.report.compact import render_compact
from coreml_prune_bench.report.paired_tables import render_pairs
from coreml_prune_bench.report.terminal import fitted
from tests.factories import accuracy_record, write_records
from tests.latency.records import record as latency

ROOT = Path(__file__).parents[2]
WIDTHS = [80, 120, 200]
LONG = "Unstructured Sparsity 75%, BatchNorm re-estimated, by layer"


def records() -> list[Record]:
    """Two networks with names and configs of every length; three trials of one."""
    bits = np.arange(1000) < 800
    rows = [accuracy_record(bits, model=model, algorithm="dense", weight_bytes=98_765_432) for model in ("a", "b" * 40)]
    for model in ("a", "b" * 40):
        for algorithm, title in (("sparse-gpt", "SparseGPT"), ("blockwise-reconstruction", "Blockwise reconstruction")):
            pruning = {
                "algorithm": algorithm, "title": title, "config": LONG, "sparsity": 0.5, "scope": "s", "settings": {},
            }  # fmt: skip
            rows.append(accuracy_record(bits[::-1], model=model, algorithm=algorithm, pruning=pruning))
    return rows


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Sets what standard output is: a terminal of so many columns."""

    def of(width: int) -> None:
        monkeypatch.setattr(output, "terminal_width", lambda: width)
        for module in ("table", "suite"):
            monkeypatch.setattr(f"coreml_prune_bench.cli.{module}.terminal_width", lambda: width)

    return of


def check_fits(text: str, width: int) -> None:
    assert max(map(cell_len, text.splitlines())) <= width, text


@pytest.mark.parametrize("width", WIDTHS)
def test_every_other_table_fits_too(width: int) -> None:
    """Latencies with their remarks, plans, sensitivities and pairs of rows: no Markdown, and the medians are there."""
    timed = [latency([3, 2, 4], [2, 2, 9], name="p" * 30), latency([30, 20, 40], name="q", algorithm="sparse-gpt")]
    effects = Sensitivity.model_validate_json((ROOT / "results/allocation/sensitivity-mobilenet_v2.json").read_text())
    texts = [
        latency_tables.render(timed, width=width),
        render_pairs(records(), "dense", width=width),
        render(records(), "size", width=width),
        sensitivity.table(effects, width),
    ]
    for text in texts:
        check_fits(text, width)
        assert "|--" not in text
    assert "2.5" in texts[0]
    assert "30" in texts[0]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_short_table_fits_and_has_every_number(width: int) -> None:
    text = render_compact(records(), width)
    check_fits(text, width)
    heads = [line.split() for line in text.splitlines() if line.startswith("Config")]
    assert heads == [["Config", "Algorithm", "Top-1", "±", "Top-5", "Lost", "MB", "Ratio"]] * 2
    assert text.count("80.00 ± 1.26") == 6
    assert text.count("98.77") == 2
    assert "1,000 images of imagefolder:x" in text
    words = text.replace("\n", " ").split()
    for word in LONG.split():
        assert word in words  # wrapped between words, not within them


@pytest.mark.parametrize("width", WIDTHS)
def test_any_table_fits_and_says_what_it_has_no_room_for(width: int) -> None:
    rows = [
        {f"Column {column:02}": f"word{column:02} and number {row}" for column in range(12)} | {"Same": "x", "Kept": 7}
        for row in range(3)
    ]
    text = fitted(rows, width, caption="A caption that is longer than a line. " * 6, keep=["Kept"])
    check_fits(text, width)
    assert "Same: x" in text
    assert "Kept" in text
    shown = [f"Column {column:02}" for column in range(12) if f"word{column:02}" in text]
    named = text.partition("No room here for: ")[2].replace("\n", " ")
    assert all((f"Column {column:02}" in shown) != (f"Column {column:02}" in named) for column in range(12))
    assert (len(shown) == 12) == (width > 80)


def test_wide_letters_and_escapes_take_the_room_that_they_take() -> None:
    rows = [{"Name": "日本語の名前" * 8, "n": "1.00"}, {"Name": "[red]x[/]\x1b[2J", "n": "-2.00"}]
    text = fitted(rows, 80)
    check_fits(text, 80)
    assert "[red]x[/]" in text
    assert "\x1b" not in text
    assert fitted([], 80) == ""


@pytest.mark.parametrize("width", WIDTHS)
def test_a_gate_fits(width: int) -> None:
    old, new = from_records(records()), from_records(records())
    report = gate(old, new, RuleSet().requiring(["top1 >= 90", "package_mb <= 4"]))
    text = as_table(report, lambda rows: fitted(rows, width, keep=("Verdict", "Run")))
    table = [line for line in text.splitlines() if line.startswith(("Verdict", "missed", "met"))]
    assert table
    for line in table:
        assert cell_len(line) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_commands_on_a_terminal_and_in_a_pipe(width: int, run_bench: Any, terminal: Any, tmp_path: Path) -> None:
    folder = write_records(tmp_path, *records())
    piped = run_bench("table", "--results", folder)[1]
    assert piped.count("| Model Name") == 1
    terminal(width)
    code, text, _ = run_bench("table", "--results", folder)
    assert code == 0
    check_fits(text, width)
    assert "--wide shows every column" in text.replace("\n", " ")
    assert run_bench("table", "--results", folder, "--wide")[1] == piped
    assert (
        run_bench("table", "--results", folder, "--json")[1]
        == run_bench("table", "--results", folder, "--format", "json")[1]
    )
    code, text, _ = run_bench("suites")
    assert code == 0
    check_fits(text, width)


def test_suites_are_those_that_ship(run_bench: Any) -> None:
    import json

    from coreml_prune_bench.bench.suite import shipped_suites

    rows = json.loads(run_bench("suites", "--json")[1])
    assert [row["suite"] for row in rows] == shipped_suites()
    cells = {row["suite"]: row["cells"] for row in rows}
    # One network: dense, two of post-training, two of SparseGPT, and the rest is as laid out.
    from coreml_prune_bench.bench.cells import lay_out
    from coreml_prune_bench.bench.suite import load_suite

    assert cells["quick"] == len(lay_out(load_suite("quick"), None))
    assert cells["published"] is None


# --- progress


def drawn(width: int, description: str, done: int, total: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a bar looks like on a terminal of so many columns."""
    file = io.StringIO()
    monkeypatch.setattr(
        rich.console, "Console", lambda **_: Console(file=file, force_terminal=True, width=width, color_system=None)
    )
    with Reporter().steps("cells", 21) as steps:
        steps.update(description, 1, total)
        steps.update(description, done, total)
        steps._bars.refresh()
    return file.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_keep_count_bar_and_time_left(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    description = f"mobilenet_v3_small, Blockwise reconstruction, {LONG}, trial 3: evaluating"
    text = drawn(width, description, 12_345, 50_000, monkeypatch)
    lines = [line for line in text.replace("\r", "\n").splitlines() if "12345/50000" in line]
    assert lines
    for line in lines:
        visible = "".join(part.partition("K")[2] if part.startswith("[") else part for part in line.split("\x1b"))
        assert cell_len(visible.rstrip()) <= width, visible
        assert "━" in visible or "╸" in visible
        assert "evaluating" in visible  # the end of it says the step in hand
        assert ":" in visible.split("50000")[1]  # the time left
    assert ("…" in lines[-1]) == (width < 200)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What progress takes for the time, in seconds, to be set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_off_a_terminal_a_line_a_minute_is_told(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter().steps("cells", 3) as steps:
        steps.advance()
        for second in range(0, 181, 10):
            clock[0] = float(second)
            steps.update("tiny, dense: evaluating", second, 1800)
    assert capsys.readouterr().err.splitlines() == [
        "cells 1/3, tiny, dense: evaluating 60/1,800, about 29 min left of it",
        "cells 1/3, tiny, dense: evaluating 120/1,800, about 28 min left of it",
        "cells 1/3, tiny, dense: evaluating 180/1,800, about 27 min left of it",
    ]


def test_the_time_left_of_a_step_begins_anew_where_it_counts_something_else(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a reconstruction, which chooses its zeros in 100 steps and then fits in 3,400, all of it pruning."""
    with Reporter().steps("cells", 1) as steps:
        for second, done, total in ((0, 0, 100), (50, 100, 100), (51, 1, 3400), (111, 61, 3400)):
            clock[0] = float(second)
            steps.update("pruning", done, total)
    assert capsys.readouterr().err.splitlines() == [
        "pruning 61/3,400, about 56 min left of it"
    ]  # a step a second, and 3,339 left


def test_the_time_left_of_what_goes_on_at_once_is_that_of_each(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """As of two workers, one of which goes on from a checkpoint: 2 and 1 steps in 10 seconds."""
    with Reporter().steps("cells", 4) as steps:
        for tenth in range(13):
            for machine, begun, pace in (("one", 0, 2), ("two", 400, 1)):
                clock[0] += 5.0
                steps.update(f"{machine}: training", begun + tenth * pace, 500)
            if tenth == 9:
                steps.advance()  # a cell of a third one
    assert capsys.readouterr().err.splitlines() == [
        "cells 0/4, two: training 405/500, about 16 min left of it",
        "cells 1/4, two: training 411/500, about 15 min left of it",
    ]


def test_a_step_that_begins_again_is_another_one(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter().steps("cells", 2) as steps:
        for second, done in ((0, 0), (50, 100), (51, 0), (111, 30)):
            clock[0] = float(second)
            steps.update("evaluating", done, 100)
    assert capsys.readouterr().err.splitlines() == ["cells 0/2, evaluating 30/100, about 2 min left of it"]


# --- help


def commands() -> Sequence[tuple[str, Any]]:
    from coreml_prune_bench.cli.app import COMMANDS, _imported

    found = []
    for name in COMMANDS:
        command = _imported(name)
        below = getattr(command, "commands", {})
        found += [(f"{name} {one}", each) for one, each in below.items()] if below else [(name, command)]
    return found


def test_every_command_has_an_example_and_every_option_its_default() -> None:
    for name, command in commands():
        assert f"For example: `{name}" in command.help, name
        for option in command.params:
            if option.param_type_name == "option" and option.name != "help" and not option.required:
                told = option.default is not None or option.help.endswith("]")
                assert told, (name, option.opts)
        if "--format" in {opt for option in command.params for opt in option.opts} and name != "report":
            assert "--json" in {opt for option in command.params for opt in option.opts}, name
