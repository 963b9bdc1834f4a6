"""What is wrong with a file that somebody wrote, in words: everything that pydantic found, at once and in one line."""

import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from coreml_prune_bench.models.errors import fraction_hint

_LISTS = ("tuple_type", "list_type")
_TABLES = ("dict_type", "model_type", "model_attributes_type", "dataclass_type")
_MOST_SHOWN = 60
"""Characters of a value that is wrong."""


def problems_of(error: ValidationError, model: type[BaseModel], hint: Callable[[tuple[Any, ...]], str]) -> list[str]:
    """Everything that is wrong, each as "place: what", unknown keys first: a misspelled key is also a missing one.

    model: what was validated. hint: for the place of an unknown key, the end of the message, such as `did_you_mean`'s.
    """
    found = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    return [_told(problem, model, hint) for problem in found]


def in_one_line(problems: Sequence[str]) -> str:
    """The problems of one file: the only one as it is, several numbered."""
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} errors: " + " ".join(f"({number}) {text}." for number, text in enumerate(problems, 1))


def _told(problem: Any, model: type[BaseModel], hint: Callable[[tuple[Any, ...]], str]) -> str:
    loc, kind, value = problem["loc"], problem["type"], problem["input"]
    place = ".".join(str(part) for part in loc)
    if kind == "extra_forbidden":
        return f"unknown key {place!r}{hint(loc)}"
    what = problem["msg"].removeprefix("Value error, ")
    if kind in _LISTS and isinstance(value, str):
        of_texts = typing.get_args(_annotation(model, loc)) in ((str, ...), (str,))
        what = f"expected a list, got {_shown(value)}" + (f'; write {loc[-1]} = ["{value}"]' if of_texts else "")
    elif kind in (*_LISTS, *_TABLES):
        what = f"expected a {'list' if kind in _LISTS else 'table'}, got {_shown(value)}"
    elif kind not in ("missing", "value_error"):
        what += f", got {_shown(value)}" + (fraction_hint(value) if _is_below_one(problem) else "")
    return f"{place}: {what}" if place else what


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _is_below_one(problem: Any) -> bool:
    limits = problem.get("ctx", {})
    return problem["type"] in ("less_than", "less_than_equal") and (limits.get("lt") == 1 or limits.get("le") == 1)


def _annotation(model: Any, loc: tuple[Any, ...]) -> Any:
    """The type of the field at `loc`, without None and Annotated; None where there is no telling."""
    annotation: Any = model
    for part in loc:
        fields = getattr(annotation, "model_fields", {})
        if part not in fields:
            return None
        annotation = fields[part].annotation
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):
            annotation = next((one for one in typing.get_args(annotation) if one is not type(None)), None)
    return annotation
