"""What holds for the options and arguments of every command: each command is of the classes that are here."""

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from coreml_prune_bench.core.errors import BenchError

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Given:
    """A command that looks at what was given before it is called. Raises BenchError of one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--help" not in args:
            _refuse_second_values(self, ctx, args)
        rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        return rest


class Command(_Given, TyperCommand):
    """A command."""


class Group(_Given, TyperGroup):
    """A command that has others below it."""


class App(typer.Typer):
    """Commands below one name: `app.command()` makes one of them."""

    def __init__(self, *, help: str | None = None, no_args_is_help: bool = False) -> None:
        super().__init__(
            cls=Group,
            help=help,
            no_args_is_help=no_args_is_help,
            add_completion=False,
            rich_markup_mode="markdown",
        )

    def command(self, name: str | None = None, **options: Any) -> Callable[[_Function], _Function]:
        return super().command(name, **{"cls": Command} | options)


def _refuse_second_values(command: Any, ctx: Any, args: list[str]) -> None:
    """Of an option that takes one value the last one would count, and the others be lost without a word."""
    _, _, given = command.make_parser(ctx).parse_args(args=list(args))
    for option, times in Counter(given).items():
        takes_one = option.param_type_name == "option" and not (option.multiple or option.is_flag or option.count)
        if times > 1 and takes_one:
            raise BenchError(f"{option.opts[0]} takes one value, and was given {times}")
