"""The schemas of every file that is kept and read again, and how a file of an older one is read.

A change that makes older files unreadable, or mean something else, is a new version here and a migration from the one
before; `tests/records/schemas` holds a file of every version.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import from_json

from coreml_prune_bench.core.errors import BenchError, DamagedFileError
from coreml_prune_bench.models.pointers import pointer_text_problem

_Model = TypeVar("_Model", bound=BaseModel)
_Content = dict[str, Any]

VERSIONS = {
    "record": 4,
    "latency record": 2,
    "parity record": 1,
    "baseline": 1,
    "lock of published packages": 1,
    "self-test": 1,
}
"""The version that is written, by what the file is."""


def _with_unknown_threads(content: _Content) -> _Content:
    """How many threads computed was not kept."""
    made = content.get("provenance")
    unknown = {"build_threads": None, "predict_threads": None}
    return content | {"provenance": made | unknown} if isinstance(made, dict) else content


_MIGRATIONS: dict[tuple[str, int], Callable[[_Content], _Content]] = {
    # Which code was run was not kept; the key alone stands for it.
    ("record", 1): lambda content: content | {"code": {}},
    ("record", 2): _with_unknown_threads,
    # Images were prepared as usual: a record without `preprocessing` says so.
    ("record", 3): lambda content: content,
    ("latency record", 1): _with_unknown_threads,
}
"""From a version to the next; applied in turn."""


class Frozen(BaseModel):
    """Part of a file that is kept.

    Names that are no text, as those of files that are not in UTF-8, are told as escapes: no strict reader takes JSON
    that holds them as they are.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _all_text(cls, content: Any) -> Any:
        return {name: _text(value) for name, value in content.items()} if isinstance(content, dict) else content


def _text(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, tuple | list) and value and isinstance(value[0], str):
        return tuple(map(_text, value))
    return value


_LAST_VERSION = 10**6
"""Above it a version is no version."""


def read_file_as(model: type[_Model], kind: str, path: Path) -> _Model:
    """`read_as` of a file. DamagedFileError too for what is none: a folder, a pipe, a link that leads nowhere."""
    return read_as(model, kind, content_of(path, kind), str(path))


def content_of(path: Path, kind: str) -> bytes:
    """The bytes of a file; DamagedFileError for what is none, which to open could mean to wait for ever."""
    try:
        if path.is_file():
            return path.read_bytes()
    except PermissionError:
        raise  # nothing is known of it
    except OSError as error:
        raise DamagedFileError(f"{path} is not a {kind}: {error.strerror}") from error
    raise DamagedFileError(f"{path} is not a {kind}: it is no file")


def read_as(model: type[_Model], kind: str, text: bytes | str, source: str, mend: str = "") -> _Model:
    """The content of a file of this schema or an older one. source: its name, for errors; mend: what to do about one.

    Raises DamagedFileError of one line for half a file or something else, BenchError for a schema of a later version.
    """
    newest = VERSIONS[kind]
    try:
        content = from_json(text)
    except ValueError as error:
        if pointer := pointer_text_problem(text.encode() if isinstance(text, str) else text):
            raise BenchError(f"{source} {pointer}") from error
        raise DamagedFileError(f"{source} is not a {kind}: Invalid JSON: {error}{mend}") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version < _LAST_VERSION:
        raise DamagedFileError(f"{source} is not a {kind} of schema {newest}: it has no schema_version{mend}")
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
        # Keys that stand in the file are part of the place, and may be of several lines.
        place = " ".join(".".join(map(str, problem["loc"])).split())
        told = f"{place} {problem['msg'].removeprefix('Value error, ')}".strip()
        raise DamagedFileError(f"{source} is not a {kind} of schema {newest}: {told}{mend}") from error
