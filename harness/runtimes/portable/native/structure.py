"""`MLModelStructure` of a saved ML program: coremltools' own dataclasses, filled from the protobuf.

It tells what the program holds and must tell nothing of how it would run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from coreml_prune_bench.mlprogram.reader import specification


class OperationProxy:
    """`_MLModelStructureProgramOperationProxy`: what a compute plan would look an operation up by."""


class LayerProxy:
    """`_MLModelStructureNeuralNetworkLayerProxy`. Neural networks are not run here, so there is none."""


def model_structure(package: Path) -> Any:
    from coremltools.models import compute_plan as ct

    program = specification(package).mlProgram
    functions = {name: _function(function) for name, function in program.functions.items()}
    return ct.MLModelStructure(neuralnetwork=None, program=ct.MLModelStructureProgram(functions), pipeline=None)


def _function(function: Any) -> Any:
    from coremltools.models import compute_plan as ct

    block = function.block_specializations[function.opset]
    return ct.MLModelStructureProgramFunction(inputs=_named(function.inputs), block=_block(block))


def _block(block: Any) -> Any:
    from coremltools.models import compute_plan as ct

    return ct.MLModelStructureProgramBlock(
        inputs=_named(block.inputs),
        operations=[_operation(operation) for operation in block.operations],
        output_names=list(block.outputs),
    )


def _operation(operation: Any) -> Any:
    from coremltools.models import compute_plan as ct

    return ct.MLModelStructureProgramOperation(
        inputs={name: _argument(argument) for name, argument in operation.inputs.items()},
        operator_name=operation.type,
        outputs=_named(operation.outputs),
        blocks=[_block(block) for block in operation.blocks],
        __proxy__=OperationProxy(),
    )


def _argument(argument: Any) -> Any:
    from coremltools.models import compute_plan as ct

    def binding(bound: Any) -> Any:
        named = bound.WhichOneof("binding") == "name"
        return ct.MLModelStructureProgramBinding(
            name=bound.name if named else None, value=None if named else ct.MLModelStructureProgramValue()
        )

    return ct.MLModelStructureProgramArgument([binding(bound) for bound in argument.arguments])


def _named(values: Iterable[Any]) -> list[Any]:
    from coremltools.models import compute_plan as ct

    return [
        ct.MLModelStructureProgramNamedValueType(name=value.name, type=ct.MLModelStructureProgramValueType())
        for value in values
    ]
