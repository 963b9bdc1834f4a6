"""TOML and YAML that somebody wrote: small files of a few levels, or one line that says why not.

Both formats can say much in little: lists in lists until Python's stack ends, keys of thousands of parts, and in YAML
names for parts that stand for each other's copies, ten of ten of ten.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

MOST_BYTES = {"TOML": 1 << 20, "YAML": 256 << 10}
"""The time to read them grows with their size, and PyYAML takes a second for 40 kB."""

_MOST_PARTS = 64
_DOTTED = re.compile(
    r"(?<![\w\"'-])(?:(?:[\w-]++|\"[^\"\n]*+\"|'[^'\n]*+')[ \t]*+\.[ \t]*+){%d}" % _MOST_PARTS  # noqa: UP031
)
_FREE_LETTERS = 100_000
_LETTERS_A_LETTER = 10
"""What a YAML file may say in all, once its aliases are written out, for each letter that it has."""

_TOO_DEEP = "it is nested too deep"


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises OSError, and ValueError with one line that does not name the file."""
    text = _text(path, "TOML")
    if _DOTTED.search(text):
        raise ValueError(f"it has a key of {_MOST_PARTS} parts and more")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file of plain values. Raises as `read_toml`."""
    import yaml

    text = _text(path, "YAML")
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        if root is None:
            return None
        letters = _letters(root, {})
        if letters > _FREE_LETTERS + _LETTERS_A_LETTER * len(text):
            raise ValueError(f"its aliases make {letters:,} letters of {len(text):,}")
        return yaml.SafeLoader("").construct_document(root)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    # PyYAML's own, and what Python's types raise for text that only looks like a number or a date.
    except (yaml.YAMLError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _text(path: Path, kind: str) -> str:
    most = MOST_BYTES[kind]
    if kind == "YAML" and path.exists() and not path.is_file():  # named by a suite, not by who typed a command
        raise ValueError("it is no file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most >> 10:,} KiB")
    return content.decode()


def _letters(node: Any, known: dict[int, int | None]) -> int:
    """How much the node says, its aliases written out: letters, and one for each node. ValueError for a circle."""
    place = id(node)
    if place not in known:
        known[place] = None  # until it is told
        parts = node.value if isinstance(node.value, list) else []
        flat = [part for one in parts for part in (one if isinstance(one, tuple) else (one,))]
        own = 1 if isinstance(node.value, list) else 1 + len(node.value)
        known[place] = own + sum(_letters(part, known) for part in flat)
    letters = known[place]
    if letters is None:
        raise ValueError("it holds itself")
    return letters
