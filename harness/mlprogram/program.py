"""An ML program as it is read: one function's operations, and what the model declares of inputs and outputs.

Nothing here knows of protobuf or of files.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from coreml_prune_bench.mlprogram.values import Argument, Constant, NamedType, Reference, Shape
from coreml_prune_bench.mlprogram.weights import Weights


@dataclass(frozen=True, eq=False)
class Operation:
    """One statement. `attributes` holds what MIL keeps apart from inputs: a const's `val`, a constexpr's data.

    `opset` is that of a pipeline's model which it is from; None: the program's.
    """

    type: str
    name: str
    inputs: Mapping[str, tuple[Argument, ...]]
    attributes: Mapping[str, Constant]
    outputs: tuple[NamedType, ...]
    blocks: tuple[Block, ...] = ()
    opset: str | None = None

    def references(self) -> list[str]:
        """The names of the values that it takes; what its blocks take is not among them."""
        return [a.name for arguments in self.inputs.values() for a in arguments if isinstance(a, Reference)]


@dataclass(frozen=True, eq=False)
class Block:
    """What a function, a branch or a loop's body holds. `results` names the values that it returns."""

    inputs: tuple[NamedType, ...]
    operations: tuple[Operation, ...]
    results: tuple[str, ...]

    def defined(self) -> list[str]:
        """The names of the values that the block takes and makes, without those of blocks within it."""
        made = [output.name for operation in self.operations for output in operation.outputs]
        return [*(value.name for value in self.inputs), *made]


def renamed(operation: Operation, values: MutableMapping[str, str], opset: str | None = None) -> Operation:
    """The operation, with `values` for the names that it and its blocks take from outside and that it makes.

    `opset` is for it and for what its blocks hold; None leaves theirs.
    """

    def argument(given: Argument) -> Argument:
        return Reference(values.get(given.name, given.name)) if isinstance(given, Reference) else given

    def nested(block: Block) -> Block:
        seen = ChainMap({name: name for name in block.defined()}, values)
        results = tuple(seen.get(name, name) for name in block.results)
        return replace(block, operations=tuple(renamed(o, seen, opset) for o in block.operations), results=results)

    return replace(
        operation,
        inputs={key: tuple(argument(given) for given in arguments) for key, arguments in operation.inputs.items()},
        outputs=tuple(replace(output, name=values.get(output.name, output.name)) for output in operation.outputs),
        blocks=tuple(nested(block) for block in operation.blocks),
        opset=opset or operation.opset,
    )


@dataclass(frozen=True)
class Feature:
    """An input, output or state as the model's description declares it.

    `shape` is what one sample has: an image is [H, W, C], an array is as declared, None where a size is open. `sizes`
    then says what each dimension may be (the last None: no upper bound), `shapes` lists the only shapes that are
    allowed where they are enumerated, and `default_shape` is what the model was converted with.
    `dtype` is NumPy's word. `color_space` is RGB, BGR, GRAYSCALE or GRAYSCALE_FLOAT16 for an image and None otherwise.
    `default` is the element of an optional input that is not given.
    """

    name: str
    kind: Literal["image", "array", "label", "probabilities"]
    shape: Shape
    dtype: str
    color_space: str | None = None
    default_shape: tuple[int, ...] = ()
    sizes: tuple[tuple[int, int | None], ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    default: float | None = None

    @property
    def flexible(self) -> bool:
        return None in self.shape

    def accepts(self, shape: Sequence[int]) -> bool:
        if len(shape) != len(self.shape):
            return False
        if self.shapes:
            return tuple(shape) in self.shapes
        if self.sizes:
            bounds = zip(shape, self.sizes, strict=True)
            return all(low <= size and (high is None or size <= high) for size, (low, high) in bounds)
        return all(expected in (None, size) for expected, size in zip(self.shape, shape, strict=True))

    def expected_shape(self) -> str:
        """What `accepts` asks for, in words."""
        if self.shapes:
            return "one of the shapes " + ", ".join(str(list(shape)) for shape in self.shapes)
        parts = [str(size) if size is not None else _range(self.sizes, axis) for axis, size in enumerate(self.shape)]
        return f"shape [{', '.join(parts)}]"


def _range(sizes: Sequence[tuple[int, int | None]], axis: int) -> str:
    if axis >= len(sizes):
        return "any"
    low, high = sizes[axis]
    return f"{low}..{'' if high is None else high}"


@dataclass(frozen=True, eq=False)
class Program:
    """One function of a package. `arguments` are the program's inputs, `inputs` what the model declares for them.

    A classifier's label and probabilities are declared as outputs and stand in no block: `label` and `probabilities`
    name them.
    """

    package: Path
    function: str
    functions: tuple[str, ...]
    specification_version: int
    opset: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]
    arguments: tuple[NamedType, ...]
    operations: tuple[Operation, ...]
    results: tuple[str, ...]
    weights: Weights
