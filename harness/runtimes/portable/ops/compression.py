"""Compressed weights, decompressed while translating: they become Float32 initializers.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS16/constexpr_ops.py and iOS18/compression.py. A weight that is
compressed twice is a chain of these operations.
"""

import math

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram import decompress
from coreml_prune_bench.mlprogram.values import Immediate
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation

_COMPUTED_BYTES = 2


@operation(*decompress.OPERATIONS)
def constexpr(call: Call) -> None:
    parameters = [*call.operation.inputs, *call.operation.attributes]
    data = {parameter: call.stored_array(parameter) for parameter in parameters}
    elements = [math.prod(output.type.fixed_shape) for output in call.operation.outputs]
    call.graph.budget.take_bytes(_COMPUTED_BYTES * sum(elements))
    try:
        arrays = decompress.decompressed(call.operation.type, data, max(elements))
    except ValueError as error:
        raise PackageError(f"{call.graph.program.package}: weight {call.output}: {error}") from error
    for output, array in zip(call.operation.outputs, arrays, strict=True):
        if array.shape != output.type.shape:
            raise call.malformed(f"it has shape {list(array.shape)}, and is declared as {list(output.type.shape)}")
        call.graph.define(output.name, Immediate(output.type, array))
