"""Standard output: what commands print, for readers or for programs."""

import json
from typing import Any

from coreml_prune_bench.core.escaping import json_text, message, printable


def show(content: object = "") -> None:
    """Lines for readers. Of what a package, record or folder brings in, a terminal obeys nothing."""
    print(printable(str(content)))


def show_line(content: str) -> None:
    """One line for readers, whatever is in it."""
    print(message(content))


def show_json(content: Any, indent: int = 2) -> None:
    """Plain values as JSON, or what is JSON already."""
    print(json_text(content) if isinstance(content, str) else json.dumps(content, indent=indent))
