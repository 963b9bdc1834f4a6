"""What holds for the options and arguments of every command: each command is of the classes that are here."""

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models.paths import expanded

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Given:
    """A command that looks at what was given before it is called. Raises BenchError of one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--help" not in args:
            _look(self, ctx, args)
        rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        return rest


class Command(_Given, TyperCommand):
    """A command."""


class Group(_Given, TyperGroup):
    """A command that has others below it."""


class App(typer.Typer):
    """Commands below one name: `app.command()` makes one of them.

    They are given paths with the home folder in place of `~`, which shells replace in some places alone.
    """

    def __init__(self, *, help: str | None = None, no_args_is_help: bool = False) -> None:
        super().__init__(
            cls=Group,
            help=help,
            no_args_is_help=no_args_is_help,
            add_completion=False,
            rich_markup_mode="markdown",
        )

    def command(self, name: str | None = None, **options: Any) -> Callable[[_Function], _Function]:
        made_of = super().command(name, **{"cls": Command} | options)
        return lambda function: made_of(_at_home(function))

    def callback(self, **options: Any) -> Callable[[_Function], _Function]:
        made_of = super().callback(**options)
        return lambda function: made_of(_at_home(function))


def _look(command: Any, ctx: Any, args: list[str]) -> None:
    values, _, given = command.make_parser(ctx).parse_args(args=list(args))
    for parameter, times in Counter(given).items():
        value = values[parameter.name]
        # The last one would count, and the others be lost without a word.
        if times > 1 and isinstance(value, str):
            raise BenchError(f"{_told(parameter)} takes one value, and was given {times}")
        # As a path it would be the working directory, as a name none, which is often all.
        if "" in (value if isinstance(value, list | tuple) else [value]):
            raise BenchError(
                f"{_told(parameter)} is empty, as of a variable that is not set; give a value or leave it out"
            )


def _at_home(function: _Function) -> _Function:
    @functools.wraps(function)
    def called(**given: Any) -> Any:
        return function(**{name: _expanded(value) for name, value in given.items()})

    return called  # type: ignore[return-value]


def _expanded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_expanded(one) for one in value]
    if not isinstance(value, Path):
        return value
    found = expanded(value)
    if str(found).startswith("~"):
        raise BenchError(f"{value}: there is no home folder {found.parts[0]}; ./{value} is below this one")
    return found


def _told(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    return str(parameter.opts[0] if is_option else parameter.metavar or parameter.name.upper())
