"""Options that several commands have in common: written once, and given to a command as one value."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

_Command = Callable[..., None]


def takes(
    parameter: str, read: Callable[..., object], *, without: Collection[str] = ()
) -> Callable[[_Command], _Command]:
    """A command whose `parameter` becomes, in its place, the options that are parameters of `read`, less `without`.

    The command is given what `read` makes of them.
    """
    options = {name: one for name, one in inspect.signature(read).parameters.items() if name not in without}

    def with_options(command: _Command) -> _Command:
        own = inspect.signature(command)
        parameters: list[inspect.Parameter] = []
        for one in own.parameters.values():
            parameters += options.values() if one.name == parameter else [one]

        @functools.wraps(command)
        def taking(**given: Any) -> None:
            value = read(**{name: given.pop(name) for name in options})
            command(**given, **{parameter: value})

        vars(taking)["__signature__"] = own.replace(parameters=parameters)
        return taking

    return with_options
