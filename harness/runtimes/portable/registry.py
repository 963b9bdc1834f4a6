"""Which operations the portable runtime knows: MIL's name, the function that translates it, and its rule for batches.

It must import no operation: the `ops_*` modules register themselves when `translate` imports them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import UnsupportedOperationError
from harness.runtimes.portable.batch import never
from harness.runtimes.portable.graph import Call

Translator = Callable[[Call], None]
BatchRule = Callable[[Call], bool]


@dataclass(frozen=True)
class Entry:
    """`keeps_batch` answers whether sample i of the output depends on sample i of the inputs alone."""

    translate: Translator
    keeps_batch: BatchRule


_OPERATIONS: dict[str, Entry] = {}


def operation(*types: str, batch: BatchRule = never) -> Callable[[Translator], Translator]:
    """Register a translation for the MIL operations `types`.

    Without a batch rule, a program that uses the operation runs one sample after the other, which is always right.
    """

    def register(translate: Translator) -> Translator:
        for type_ in types:
            if type_ in _OPERATIONS:
                raise ValueError(f"operation {type_!r} is registered twice")
            _OPERATIONS[type_] = Entry(translate, batch)
        return translate

    return register


def lookup(call: Call) -> Entry:
    """The entry for the call's operation. Raises UnsupportedOperationError, which names it, where there is none."""
    type_ = call.operation.type
    if type_ not in _OPERATIONS:
        outputs = ", ".join(output.name for output in call.operation.outputs)
        raise UnsupportedOperationError(
            f"{call.graph.program.package}: operation {type_!r} ({outputs}) is not one that the portable runtime knows"
        )
    return _OPERATIONS[type_]


def known() -> frozenset[str]:
    return frozenset(_OPERATIONS)
