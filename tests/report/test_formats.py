"""Tables in four formats: what would break a cell is escaped, and a column added in one place is in all of them."""

import csv
import io
import json
from pathlib import Path

import pytest

from coreml_prune_bench.report.accuracy_tables import COLUMNS, render, rows
from coreml_prune_bench.report.config_rows import ConfigRow
from coreml_prune_bench.report.formats import Column, cells, number, percent, text, values, write_cells, write_values
from tests.report.test_accuracy_tables import dense, record

# Cells of the four kinds of trouble: bars, ends of lines, commands of LaTeX, quotes and commas.
AWKWARD = 'a|b, "c" & 50 % of_#1 {x} ~ ^ \\ $\r\nsecond line'


def test_a_bar_and_the_end_of_a_line_do_not_break_a_markdown_cell():
    lines = write_cells([{"Name|s": AWKWARD, "n": 1}]).splitlines()
    assert len(lines) == 3
    assert r"| Name\|s " in lines[0]
    assert r'| a\|b, "c" & 50 % of_#1 {x} ~ ^ \ $ second line | 1' in lines[2]


def test_a_backslash_before_a_bar_does_not_take_the_escape_away():
    # Markdown reads \\ as a backslash and \| as a bar.
    assert r"| a\\\|b |" in write_cells([{"x": r"a\|b"}])


def test_latex_commands_are_escaped_and_captions_are_comments():
    written = write_cells([{"x": AWKWARD}], "latex", caption="50 % of\nall", remarks=["one", "two"])
    lines = written.splitlines()
    assert lines[0] == "% 50 % of all"
    assert lines[-2:] == ["% one", "% two"]
    expected = r'a\textbar{}b, "c" \& 50 \% of\_\#1 \{x\} \textasciitilde{} \^{} \textbackslash{} \$ second line \\'
    assert expected in written


def test_csv_and_json_keep_a_value_as_it_is():
    rows = [{"name": AWKWARD, "n": None}, {"name": "plain", "n": 2.5}]
    (awkward, plain) = csv.DictReader(io.StringIO(write_values(rows, "csv"), newline=""))
    assert (awkward, plain) == ({"name": AWKWARD, "n": ""}, {"name": "plain", "n": "2.5"})
    assert json.loads(write_values(rows, "json")) == rows
    assert write_values([], "json") == "[]"
    assert write_values([], "csv") == ""


def test_captions_and_remarks_stand_around_a_markdown_table():
    written = write_cells([{"x": "1"}], caption="What it is.", remarks=["hot", "late"])
    assert written.split("\n\n") == ["What it is.", "| x   |\n|-----|\n| 1   |", "- hot\n- late"]


def test_how_values_read():
    assert [form(None) for form in (text, number(), percent())] == ["-", "-", "-"]
    assert (text(""), text(3), number("+.1f")(2), percent()(0.755)) == ("-", "3", "+2.0", "75.5 %")


def test_columns_stand_by_place_for_readers_and_as_listed_in_data():
    columns: list[Column[dict[str, int]]] = [
        Column("b", lambda row: row["b"], "B", tables=("t",), place=2),
        Column("hidden", lambda row: 0),
        Column("a", lambda row: row["a"], "A", tables=("t",), place=1),
        Column(None, lambda row: row["a"] + row["b"], "Sum", tables=("t", "u")),
    ]
    row = {"a": 1, "b": 2}
    assert list(values(columns, row).items()) == [("b", 2), ("hidden", 0), ("a", 1)]
    assert list(cells(columns, row, "t").items()) == [("A", "1"), ("B", "2"), ("Sum", "3")]
    assert cells(columns, row, "u") == {"Sum": "3"}


def test_names_and_headers_are_of_one_column_each():
    names = [column.name for column in COLUMNS if column.name]
    assert len(names) == len(set(names))
    for table in ("accuracy", "size", "comparison"):
        shown = [column.header for column in COLUMNS if table in column.tables]
        assert len(shown) == len(set(shown))


def test_a_new_column_is_one_entry_and_stands_in_every_format(monkeypatch: pytest.MonkeyPatch):
    def on(row: ConfigRow) -> str | None:
        return row.first.provenance.host if row.first else None

    with_host = [*COLUMNS, Column("host", on, "Host", tables=("accuracy",))]
    for name in ("COLUMNS", "COMPARISON_COLUMNS"):  # the second is the first and what is told beside the published
        monkeypatch.setattr(f"coreml_prune_bench.report.accuracy_tables.{name}", with_host)
    records = [dense(), record()]
    assert rows(records)[0]["host"] == "h"
    assert render(records, "accuracy", "csv").splitlines()[0].endswith(",host")
    header = render(records, "accuracy").splitlines()[2]
    assert header.rstrip(" |").endswith("| Host")
    assert "Host" not in render(records, "size")


def test_only_one_module_writes_tables():
    source = Path(__file__).parents[2] / "harness"
    users = [path.name for path in source.rglob("*.py") if "tabulate" in path.read_text(encoding="utf-8")]
    assert users == ["formats.py"]


def test_a_row_of_latex_that_begins_with_an_option_is_a_row():
    """After a row, LaTeX takes a bracket for a length and a star for an order, also in the next line."""
    written = write_cells([{"x": cell, "y": "`q`"} for cell in ("[red]", "*new*", "plain")], "latex")
    rows = [line.strip() for line in written.splitlines() if "&" in line]
    assert [row.partition(" ")[0] for row in rows] == ["x", "{}[red]", "{}*new*", "plain"]
    assert r"\textasciigrave{}q\textasciigrave{}" in rows[1]
    assert (
        write_cells([{"x": "1"}], "latex", caption="a\n\\input{b}\u2028c\r\x1b").splitlines()[0]
        == r"% a \input{b} c \x1b"
    )


def test_a_spreadsheet_computes_no_label():
    written = write_values([{"name": '=HYPERLINK("http://x")', "difference": -1.5, "next": "\t+1"}], "csv")
    assert list(csv.reader(io.StringIO(written)))[1] == ['\'=HYPERLINK("http://x")', "-1.5", "'\t+1"]
