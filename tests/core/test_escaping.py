"""Escaping, held to what reads it: a parser of each format gives back the text that went in, and nothing else."""

import csv
import io
import itertools
import json
import re
import shlex
import subprocess
import xml.etree.ElementTree as ET
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from coreml_prune_bench.core.escaping import (
    csv_cell,
    json_text,
    markdown,
    markdown_line,
    message,
    one_line,
    printable,
    shell_command,
    shell_comment,
    shell_option,
    workflow_command,
    xml_attribute,
    xml_text,
)
from coreml_prune_bench.report.formats import write_cells

PIECES = [
    "a", "|", "\\", "`", "``", "*b*", "**", "_c_", "__init__", "x_y", "~~s~~", "~", "$x$", "<script>", "</b>", "<!--",
    "< 1", "<https://x>", "&amp;", "&#42;", "& ", "[l](u)", "![i](u)", "[r]: u", "[1, 2]", "# h", "- i", "+ p",
    "1. n", "2) n", "> q", "===", "\n", "\r\n", "\r", "\t", "\u2028", "\x1b[31m", "\x07", "\x9b1m", "\u202e",
    "\udce9", "\ufffe", "\u200d", "\u3000", "é", "'", '"', "%0A", "%", "::error::", ":", ",", "$(id)", "; id", "#",
    "--x", "=1+1", "@x", "\0",
]  # fmt: skip
TEXTS = [*PIECES, *("".join(pair) for pair in itertools.product(PIECES, repeat=2))]
"""Every piece, and every two beside each other: 3,660 texts."""


def read_markdown(text: str) -> tuple[list[str], set[str]]:
    """What a reader of tables and paragraphs sees, one text a block, and every kind of token that is more than text."""
    blocks = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inline = [block for block in blocks if block.type == "inline"]
    kinds = {child.type for block in inline for child in block.children or ()} - {"text", "text_special"}
    outer = {block.type for block in blocks if block.type.startswith(("heading", "html", "bullet", "ordered", "quote"))}
    return ["".join(child.content for child in block.children or ()) for block in inline], kinds | outer


def test_markdown_gives_back_every_cell():
    rows = [{"x": text, "y": "end"} for text in TEXTS]
    cells, kinds = read_markdown(write_cells(rows))
    assert cells[:2] == ["x", "y"]
    # Markdown takes spaces away at the ends of a cell.
    assert cells[2:] == [cell for text in TEXTS for cell in (one_line(text).strip(), "end")]
    assert kinds == set()


def test_a_line_of_markdown_is_a_paragraph_whose_plain_words_may_be_code():
    for text in [*TEXTS, *(f"{one}`x`{other}" for one, other in itertools.product(PIECES, repeat=2))]:
        if not one_line(text).strip():
            continue
        (shown,), kinds = read_markdown(f"{markdown_line(text)}\n")
        assert shown.replace("`", "") == one_line(text).strip().replace("`", ""), text
        assert kinds <= {"code_inline"}, text
    assert markdown_line("Runtime `portable` is <b>") == r"Runtime `portable` is \<b>"
    assert read_markdown(markdown_line("a `$(id)` b")) == (["a `$(id)` b"], set())


def test_markdown_leaves_alone_what_means_nothing_to_it():
    for plain in ("mobilenet_v2", "p < 0.05", "a * b", "50 % & more", "-2.71 points", "conv + linear", "[3, 224]", "-"):
        assert markdown(plain) == plain


def test_csv_gives_back_every_cell_and_a_spreadsheet_computes_none():
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([csv_cell(text)] for text in TEXTS)
    file.seek(0)
    found = [row[0] if row else "" for row in csv.reader(file)]
    assert [cell.removeprefix("'") for cell in found] == [printable(text).removeprefix("'") for text in TEXTS]
    assert not [cell for cell in found if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    assert [csv_cell(value) for value in (-1.5, None, "x=1", "'a'", "=1")] == [-1.5, None, "x=1", "'a'", "'=1"]


def test_a_shell_gives_back_every_word():
    words = [text for text in TEXTS if "\0" not in text]
    script = shell_command(["printf", r"%s\0", *words])
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [word.encode("utf-8", "surrogateescape") for word in words]
    assert all(message(line) == line for line in script.split("\n"))
    assert shell_command(["git", "checkout", "x y"]) == "git checkout 'x y'"


def test_a_comment_of_a_shell_is_one_line_and_an_option_keeps_its_value():
    assert all(shlex.split(shell_comment(text), comments=True) == [] for text in TEXTS)
    assert all("\n" not in shell_comment(text) for text in TEXTS)
    assert (shell_option("--suite", "--help"), shell_option("--suite", "x")) == (["--suite=--help"], ["--suite", "x"])


def test_xml_gives_back_every_text_and_attribute():
    for text in TEXTS:
        element = ET.fromstring(f"<a b={xml_attribute(text)}>{xml_text(text)}</a>")
        ends = printable(text).replace("\r\n", "\n")  # as XML has them
        assert element.text == (ends or None), text
        assert element.attrib["b"].replace("\t", " ") == printable(text).replace("\r\n", " \n").replace("\t", " "), text


def test_json_gives_back_every_text_and_a_terminal_obeys_none():
    for text in TEXTS:
        written = json_text(json.dumps([text], ensure_ascii=False))
        assert json.loads(written) == [text]
        assert printable(written) == written


def test_a_workflow_command_is_one_line_with_its_own_title():
    """By the grammar of actions/runner: ::command key=value,key=value::data."""
    for text in TEXTS:
        command = re.fullmatch("::error title=([^:,\r\n]*)::([^\r\n]*)", workflow_command("error", text, text))
        assert command
        for found in command.groups():
            assert unquote(found) == printable(text), text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[2J\x1b]0;t\x07", r"\x1b[2J\x1b]0;t\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
        ("caf\udce9", r"caf\udce9"),
        ("a\rb\r\nc\n", "a\\rb\r\nc\n"),
        ("\ufeff\U000e0041", r"\ufeff\U000e0041"),
        ("ok é 漢字 \u00a0\u3000 👩\u200d🔬 \uf8ff\t", "ok é 漢字 \u00a0\u3000 👩\u200d🔬 \uf8ff\t"),
    ],
)
def test_what_a_terminal_obeys_is_shown(text, expected):
    assert printable(text) == expected


def test_a_message_is_one_line_that_shows_the_ends_of_others():
    assert message("a\nb\r\nc\u2028") == r"a\nb\nc\u2028"
    assert all(len(message(text).splitlines()) <= 1 for text in TEXTS)
