"""Which operations the portable runtime knows: MIL's name, the function that translates it, and its rule for batches.

It must import no operation: the `ops_*` modules register themselves when `translate` imports them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from coreml_prune_bench.core.errors import UnsupportedOperationError
from coreml_prune_bench.mlprogram.budget import OverBudgetError
from coreml_prune_bench.mlprogram.program import Operation
from coreml_prune_bench.mlprogram.values import Constant, TensorType
from coreml_prune_bench.runtimes.portable.batch import never
from coreml_prune_bench.runtimes.portable.engine import ONNX_RUNTIME_ERRORS
from coreml_prune_bench.runtimes.portable.graph import Call, Graph

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


def told_as(
    type_: str,
    known: str,
    *,
    renamed: Mapping[str, str] = {},
    given: Mapping[str, Constant] = {},
    opset: str | None = None,
    wrap: Callable[[Entry], Entry] = lambda entry: entry,
) -> None:
    """Register `type_` as another spelling of the operation `known`.

    renamed: that operation's parameters for those that have other names. given: for those that `type_` leaves out.
    opset: the one in which it meant the same. wrap: what `type_` can beyond that operation.
    """
    entry = wrap(_OPERATIONS[known])

    def spelt(call: Call) -> Call:
        return Call(call.graph, respelt(call.operation, known, renamed=renamed, given=given, opset=opset))

    operation(type_, batch=lambda call: entry.keeps_batch(spelt(call)))(lambda call: entry.translate(spelt(call)))


def respelt(
    operation: Operation,
    type_: str,
    *,
    renamed: Mapping[str, str] = {},
    given: Mapping[str, Constant] = {},
    opset: str | None = None,
) -> Operation:
    """The operation as one of another type; see `told_as`."""
    inputs = {renamed.get(name, name): arguments for name, arguments in operation.inputs.items()}
    attributes = {renamed.get(name, name): value for name, value in operation.attributes.items()}
    return replace(operation, type=type_, inputs=inputs, attributes={**given, **attributes}, opset=opset)


def lookup(call: Call) -> Entry:
    """The entry for the call's operation. Raises UnsupportedOperationError, which names it, where there is none."""
    type_ = call.operation.type
    if type_ not in _OPERATIONS:
        outputs = ", ".join(output.name for output in call.operation.outputs)
        raise UnsupportedOperationError(
            f"{call.graph.program.package}: operation {type_!r} ({outputs}) is not one that the portable runtime knows"
        )
    return _OPERATIONS[type_]


_UNFIT: tuple[type[Exception], ...] = (
    LookupError,
    ValueError,
    TypeError,
    ArithmeticError,
    AttributeError,
    *ONNX_RUNTIME_ERRORS,
)
"""What a translation meets in an operation whose arguments are not what the definition asks for."""


class MixesSamples(Exception):
    """The program does not provably keep samples apart. Never leaves the translation."""


def keep_samples_apart(call: Call) -> None:
    """To be called by an operation that no batch rule sees: what its blocks use from outside are no parameters, and
    what it draws must not be shared. Raises MixesSamples where the program runs a batch at once."""
    if call.graph.batched:
        raise MixesSamples


def apply(graph: Graph, operation: Operation) -> None:
    """Translate one operation of the program into `graph`.

    Raises MixesSamples where the values that it takes are batched and its results would not be, PackageError where the
    operation contradicts its definition.
    """
    call = Call(graph, operation)
    entry = lookup(call)
    for name in operation.references():  # before its results exist: none may be its own argument
        graph.type(name)
    for output in operation.outputs:
        graph.declare(output)
    try:
        graph.budget.take_steps()
        _translate(call, entry)
    except OverBudgetError as error:
        raise call.malformed(str(error)) from error
    except _UNFIT as error:
        # Translations check what would go wrong silently. What stops them anyway is not checked before, so this may be
        # a fault of a translation too: the cause is kept.
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise call.malformed(f"its arguments do not fit its definition ({why})") from error


def _translate(call: Call, entry: Entry) -> None:
    graph, operation = call.graph, call.operation
    batched = bool(call.batched_parameters())
    if batched and not entry.keeps_batch(call):
        raise MixesSamples
    start = len(graph.nodes)
    entry.translate(call)
    graph.settle(operation, start)
    if batched:
        _mark_batched(graph, operation)


def _mark_batched(graph: Graph, operation: Operation) -> None:
    """A result that is a constant after all, as a batched value's shape, is the same for every sample."""
    computed = [output for output in operation.outputs if graph.constant(output.name) is None]
    if not all(_can_lead(output.type) for output in computed):
        raise MixesSamples
    graph.batched.update(output.name for output in computed)


def _can_lead(type_: TensorType) -> bool:
    """Whether there is a leading dimension, or no tensor of numbers at all, as a classifier's label and dictionary."""
    return type_.shape != () or type_.kind == "dictionary" or type_.dtype in ("string", "int64")
