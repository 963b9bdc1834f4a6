"""The schemas of every file that is kept and read again, and how a file of an older one is read.

A change that makes older files unreadable, or mean something else, is a new version here and a migration from the one
before; `tests/records/schemas` holds a file of every version.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models.pointers import pointer_text_problem

_Model = TypeVar("_Model", bound=BaseModel)
_Content = dict[str, Any]

VERSIONS = {"record": 2, "latency record": 1, "baseline": 1, "lock of published packages": 1}
"""The version that is written, by what the file is."""

_MIGRATIONS: dict[tuple[str, int], Callable[[_Content], _Content]] = {
    # Which code was run was not kept; the key alone stands for it.
    ("record", 1): lambda content: content | {"code": {}},
}
"""From a version to the next; applied in turn."""


def read_as(model: type[_Model], kind: str, text: bytes | str, source: str, mend: str = "") -> _Model:
    """The content of a file of this schema or an older one. source: its name, for errors; mend: what to do about one.

    Raises BenchError of one line for half a file, a schema of a later version, or something else.
    """
    newest = VERSIONS[kind]
    try:
        content = from_json(text)
    except ValueError as error:
        if pointer := pointer_text_problem(text.encode() if isinstance(text, str) else text):
            raise BenchError(f"{source} {pointer}") from error
        raise BenchError(f"{source} is not a {kind}: Invalid JSON: {error}{mend}") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BenchError(f"{source} is not a {kind} of schema {newest}: it has no schema_version{mend}")
    if version > newest:
        raise BenchError(
            f"{source} is a {kind} of schema {version}, which this version cannot read: it knows schemas up to "
            f"{newest}; use the version that wrote it, or a newer one"
        )
    for older in range(version, newest):
        content = _MIGRATIONS[kind, older](content) | {"schema_version": older + 1}
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise BenchError(f"{source} is not a {kind} of schema {newest}: {place} {problem['msg']}{mend}") from error
