"""What a text has to be where it goes: a function a format, and the only place that knows the format's rules.

Labels, names, paths, reasons and records come from packages, folders and machines of others. They may hold what a
terminal obeys, a table takes for the end of a cell, a spreadsheet computes, a shell runs.
"""

import html
import json
import re
import shlex
import unicodedata
from collections.abc import Iterable

_JOINERS = "\u200c\u200d"
"""Invisible, and part of how Persian, Hindi and emoji are written."""
_SHOWN = frozenset({"Zs", "Co"})
"""Categories that Python calls unprintable and that a terminal only draws: spaces, and glyphs of a font's own."""
_COMPUTED = ("=", "+", "-", "@", "\t", "\r\n", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula (owasp.org, CSV Injection)."""

_MEANT = r"""
    \\(?=[!-/:-@\[-`{-~])              # a backslash before what it would escape
  | [|`]                               # the end of a cell, code
  | [*~$](?=\S) | (?<![^\W_])_(?=\S)   # the beginning of emphasis, of what is struck out, of mathematics
  | \](?=[(\[:])                       # of where a link leads
  | <(?=[A-Za-z/!?])                   # of a tag, a comment, an address
  | &(?=\#?\w+;)                       # of a character by its name
"""
_MARKDOWN = re.compile(_MEANT, re.VERBOSE)
_MARKDOWN_OR_CODE = re.compile(rf"(`[\w ,.:/%+=-]+`) | {_MEANT}", re.VERBOSE)
_BLOCK = re.compile(r"^(\d+(?=[.)])|)([#>+=.)-])")
"""What makes a heading, a list, a quotation of a line that begins with it."""


_ODD = re.compile(r"\r\n|[^\n\t -~]")
"""All that is not known to be text at once; an end of a line of two characters is one."""


def printable(text: str) -> str:
    """With Python's escapes for what is no text: characters that terminals obey or XML has no place for, and those
    that turn the order of others around. Ends of lines and tabs stay."""
    return _ODD.sub(lambda found: found[0] if _is_text(found[0]) else ascii(found[0])[1:-1], text)


def _is_text(char: str) -> bool:
    return char == "\r\n" or char.isprintable() or char in _JOINERS or unicodedata.category(char) in _SHOWN


def one_line(content: object) -> str:
    """Printable, with a space for each end of a line; empty for None."""
    return "" if content is None else printable(" ".join(str(content).splitlines()))


def message(text: str) -> str:
    """The one line of an error or a warning: ends of lines are shown as what they are."""
    return printable(text).replace("\r\n", "\\n").replace("\n", "\\n")


def markdown(content: object) -> str:
    """A cell of a table. It is read on terminals too, so only what Markdown would take for its own is escaped."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(content))


def markdown_line(content: object) -> str:
    """A paragraph, or an item of a list: as `markdown`, but plain words between backticks are code."""
    text = _MARKDOWN_OR_CODE.sub(lambda found: found[1] or f"\\{found[0]}", one_line(content).strip())
    return _BLOCK.sub(r"\1\\\2", text)


def latex_comment(content: object) -> str:
    """A line that LaTeX passes over; none for nothing."""
    return f"% {line}" if (line := one_line(content)) else ""


def latex_table(body: str) -> str:
    """A table in which the library that wrote it has escaped all but the following.

    A bar is a dash in LaTeX's first font encoding, a backtick a quotation mark; a bracket or a star after the end of a
    row would be its option.
    """
    body = body.replace("|", r"\textbar{}").replace("`", r"\textasciigrave{}")
    return re.sub(r"(?m)^(\s*)(?=[\[*])", r"\1{}", body)


def csv_cell(value: object) -> object:
    """What a spreadsheet would compute begins with an apostrophe, which it does not show. Numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_COMPUTED) else text


def xml_text(text: str) -> str:
    """Between the tags of XML or HTML."""
    return html.escape(printable(text), quote=False)


def xml_attribute(text: str) -> str:
    """An attribute's value, with its quotation marks."""
    value = xml_text(text).replace('"', "&quot;").replace("\n", "&#10;")
    return f'"{value}"'


def json_text(written: str) -> str:
    """JSON with its own escapes for what is not printable."""
    return _ODD.sub(lambda found: found[0] if _is_text(found[0]) else json.dumps(found[0])[1:-1], written)


def shell_command(words: Iterable[str]) -> str:
    """A command for a POSIX shell, or for bash and zsh where a word holds what is not printable."""
    return " ".join(map(_shell_word, words))


def _shell_word(word: str) -> str:
    if message(word) == word:
        return shlex.quote(word)
    shown = (char if char not in "\\'" and message(char) == char else _bytes_of(char) for char in word)
    return f"$'{''.join(shown)}'"


def _bytes_of(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def shell_option(name: str, value: str) -> list[str]:
    """An option and its value, which may begin as an option does."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def shell_comment(content: object) -> str:
    """A line that a shell passes over."""
    return f"# {one_line(content)}"


def workflow_command(level: str, title: str, text: str) -> str:
    """An annotation of GitHub's (github.com/actions/toolkit, packages/core/src/command.ts)."""
    return f"::{level} title={_workflow_data(title).replace(':', '%3A').replace(',', '%2C')}::{_workflow_data(text)}"


def _workflow_data(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
