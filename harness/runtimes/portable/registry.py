"""Which operations the portable runtime knows: MIL's name, the function that translates it, and its rule for batches.

It must import no operation: the `ops_*` modules register themselves when `translate` imports them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import UnsupportedOperationError
from harness.runtimes.portable.batch import never
from harness.runtimes.portable.graph import Call, Graph
from harness.runtimes.portable.reader import Operation, TensorType

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


class MixesSamples(Exception):
    """The program does not provably keep samples apart. Never leaves the translation."""


def apply(graph: Graph, operation: Operation) -> None:
    """Translate one operation of the program into `graph`.

    Raises MixesSamples where the values that it takes are batched and its results would not be.
    """
    call = Call(graph, operation)
    entry = lookup(call)
    for output in operation.outputs:
        graph.declare(output)
    if call.batched_parameters():
        if not entry.keeps_batch(call) or not all(_leads_with_one(output.type) for output in operation.outputs):
            raise MixesSamples
        graph.batched.update(output.name for output in operation.outputs)
    start = len(graph.nodes)
    entry.translate(call)
    graph.settle(operation, start)


def _leads_with_one(type_: TensorType) -> bool:
    """Or is no tensor of numbers at all, as a classifier's label and dictionary."""
    return type_.shape[:1] == (1,) or type_.kind == "dictionary" or type_.dtype in ("string", "int64")
