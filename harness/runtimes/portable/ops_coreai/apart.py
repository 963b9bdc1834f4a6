"""Operations that broadcast or work along axes, for batches of whatever dimensions they have.

An ML program's rules ask that samples lead in every value that is as long as the result, and that the leading dimension
is left alone. Core AI's programs leave out the reshapes by which they would: attention's [197, 768] is added to
[1, 197, 768]. There, each batched value gets a dimension of its own for the samples in front, and the result loses it
again: reshapes, which move no data.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from coreml_prune_bench.mlprogram.values import Immediate, NamedType, Reference, TensorType
from coreml_prune_bench.runtimes.portable.batch import broadcast, spares_leading
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import Entry, Translator, operation
from coreml_prune_bench.runtimes.portable.samples import separable


def broadcasts_apart(entry: Entry, *, least_rank: int = 0) -> Entry:
    """The operation, for samples that its own rule cannot tell apart, too.

    least_rank: of its values, where it does more than line up their dimensions from the right.
    """

    def separates(call: Call) -> bool:
        types = [type_ for parameter in call.operation.inputs for type_ in call.types(parameter)]
        known = all(type_.fixed and 0 not in type_.shape and len(type_.shape) >= least_rank for type_ in types)
        output = call.output_type
        return known and output.fixed and output.shape != () and 0 not in output.shape

    return _either(entry, separates, None)


def along_apart(entry: Entry, axes: str) -> Entry:
    """The operation, which works on x along the axes that the parameter `axes` holds, along x's leading one, too."""
    return _either(entry, lambda call: call.is_constant(axes) and separable("x")(call), axes)


def broadcasting(*types: str) -> Callable[[Translator], Translator]:
    """Register a translation for elementwise operations of several values."""

    def register(translate: Translator) -> Translator:
        entry = broadcasts_apart(Entry(translate, broadcast))
        operation(*types, batch=entry.keeps_batch)(entry.translate)
        return translate

    return register


def along(axes: str, *types: str) -> Callable[[Translator], Translator]:
    """Register a translation for operations that work on x along the axes that the parameter `axes` holds."""

    def register(translate: Translator) -> Translator:
        entry = along_apart(Entry(translate, spares_leading(axes, default=[0])), axes)
        operation(*types, batch=entry.keeps_batch)(entry.translate)
        return translate

    return register


def _either(entry: Entry, separates: Callable[[Call], bool], axes: str | None) -> Entry:
    def keeps_batch(call: Call) -> bool:
        return entry.keeps_batch(call) or separates(call)

    def translate(call: Call) -> None:
        if not call.batched_parameters() or entry.keeps_batch(call):
            entry.translate(call)
        else:
            _translate_apart(call, entry, axes)

    return Entry(translate, keeps_batch)


def _translate_apart(call: Call, entry: Entry, axes: str | None) -> None:
    """On values [N, 1, ..., K, ...] for those that are [N * K, ...]; the others are the same for all samples."""
    graph, output = call.graph, call.output_type
    inputs = dict(call.operation.inputs)
    if axes is not None:
        moved = np.asarray(call.array(axes) % call.rank("x") + 1, np.int32)
        inputs[axes] = (Immediate(TensorType("int32", moved.shape), moved),)
    for parameter in call.batched_parameters():
        shape, part = call.fixed_shape(parameter), f"{parameter}/apart"
        sizes = [*[1] * (len(output.shape) - len(shape)), *shape]
        apart = NamedType(call.part(part), replace(call.type(parameter), shape=(1, *sizes)))
        graph.declare(apart)
        graph.batched.add(apart.name)
        call.node("Reshape", [call.tensor(parameter), call.sizes(f"{part}/sizes", [-1, *sizes])], part=part)
        inputs[parameter] = (Reference(apart.name),)
    result = NamedType(call.part("apart"), replace(output, shape=(1, *output.shape)))
    graph.declare(result)
    entry.translate(Call(graph, replace(call.operation, inputs=inputs, outputs=(result,))))
    call.node("Reshape", [graph.tensor(result.name), call.sizes("sizes", [-1, *output.fixed_shape[1:]])])
