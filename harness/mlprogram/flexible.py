"""A finished package that takes images of one size, made one that takes several.

The program stays what it is: where its values have other shapes at other sizes, the sizes of these are left open. Which
ones those are is inferred by Core ML Tools, for each size on its own, so that a program which is written for one size
(it flattens before it pools, say) is refused. Weights are not touched.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.models.quiet import silenced

Shapes = dict[str, tuple[int, ...]]
"""Of a program's values, by name."""


def open_sizes(model: Any, weights: Path, sizes: Sequence[int]) -> None:
    """Let a program take square images of each of these sides, besides its own, which stays the default.

    model: coremltools' message of a model with one image input, changed in place. weights: the folder that its
    weights' files are below. Raises PackageError where the program does not compute at one of the sizes.
    """
    description = model.description.input[0]
    if len(model.description.input) != 1 or description.type.WhichOneof("Type") != "imageType":
        raise PackageError("image sizes: it does not take one image")
    image = description.type.imageType
    every = sorted({*sizes, int(image.height)})
    shapes = [_shapes(model, weights, size) for size in every]
    (function,) = model.mlProgram.functions.values()
    block = function.block_specializations[function.opset]
    named = [*function.inputs, *(output for operation in block.operations for output in operation.outputs)]
    for value in named:
        if value.type.WhichOneof("type") != "tensorType" or value.name not in shapes[0]:
            continue
        for place, across in enumerate(zip(*(of[value.name] for of in shapes), strict=True)):
            if len(set(across)) > 1:
                value.type.tensorType.dimensions[place].unknown.variadic = False
    for size in every:
        image.enumeratedSizes.sizes.add(width=size, height=size)


def _shapes(model: Any, weights: Path, size: int) -> Shapes:
    """The shapes that the program's values have for images of this side."""
    from coremltools.converters.mil.frontend.milproto import load

    with silenced():
        program = load.load(model, model.specificationVersion, str(weights))
        (source,) = program.functions.values()
        try:
            return _inferred(source, size)
        except (ValueError, TypeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise PackageError(f"image sizes: it does not take {size} pixels a side: {reason}") from error


def _inferred(source: Any, size: int) -> Shapes:
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Var

    values: dict[str, Any] = {}
    placeholders = {
        name: mb.placeholder((*given.shape[:-2], size, size), given.dtype) for name, given in source.inputs.items()
    }

    def of_here(given: Any) -> Any:
        if isinstance(given, tuple | list):
            return tuple(map(of_here, given))
        if given.name not in values:
            values[given.name] = mb.const(val=given.val, name=given.name)
        return values[given.name]

    with Function(inputs=placeholders, opset_version=source.opset_version) as target:
        values |= target.inputs
        for operation in source.operations:
            if operation.op_type == "const":
                continue
            inputs = {name: of_here(given) for name, given in operation.inputs.items()}
            made = getattr(mb, operation.op_type)(**inputs, name=operation.name)
            made = [made] if isinstance(made, Var) else made
            values |= {before.name: after for before, after in zip(operation.outputs, made, strict=True)}
    shapes = {name: tuple(map(int, value.shape)) for name, value in values.items() if hasattr(value, "shape")}
    for before in source.outputs:
        if shapes.get(before.name) != tuple(map(int, before.shape)):
            raise ValueError(f"its output would have the shape {shapes.get(before.name)}")
    return shapes
