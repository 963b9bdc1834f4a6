"""The ONNX graph under construction, and `Call`, the view of it that an operation's translation gets.

Floats are Float32 and integers of any width Int32 here; what the program's types say stays known beside the values.
What can be known while translating is: a shape that follows from the inputs' shapes, and a value that follows from
constants alone, stand in `types` and as constants as soon as the operation is written.

It must know no operation by name: what an operation means stands in the `ops_*` modules.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper

from coreml_prune_bench.core.errors import PackageError, UnsupportedOperationError
from coreml_prune_bench.mlprogram.budget import Budget
from coreml_prune_bench.mlprogram.program import Block, Operation, Program
from coreml_prune_bench.mlprogram.values import Constant, Immediate, NamedType, Reference, Shape, TensorType
from coreml_prune_bench.runtimes.portable.constants import DRAWS, check_size, evaluate, infer
from coreml_prune_bench.runtimes.portable.interface import Classifier

Precision = Literal["float32", "float16"]

FLOATS = ("fp16", "fp32")
"""The element types that become Float32, in which everything is computed."""

INTEGERS = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "int4", "uint1", "uint2", "uint3", "uint4", "uint6")
"""The element types that become Int32: ONNX Runtime computes few operations in narrower integers."""


def onnx_type(dtype: str) -> int:
    """The ONNX element type that stands for a MIL one. Raises KeyError where there is none."""
    if dtype in FLOATS:
        return onnx.TensorProto.FLOAT
    if dtype in INTEGERS:
        return onnx.TensorProto.INT32
    return {"bool": onnx.TensorProto.BOOL}[dtype]


_NAMES_TOLD = 3
_DECODED_BYTES = 4
_COMPUTED_BYTES = 32
"""Of an element that NumPy computes, in Float64 or Int64 and in several steps."""

MOST_DEPTH = 30
"""Of graphs inside graphs: protobuf reads a hundred messages inside each other, and each graph stands in three."""


class Graph:
    """Nodes and initializers so far, and what is known of each MIL value: its type, its constant, its batch.

    ONNX names are the MIL names; names that MIL does not have carry a slash, which no MIL identifier can.
    `states` holds, for each state, the name of its current value; `blocks` numbers the blocks that are translated, and
    `loop_types` keeps, by a loop's block, the types that its values have turned out to have.
    """

    def __init__(self, program: Program, precision: Precision = "float32") -> None:
        self.program = program
        self.precision = precision
        self.nodes: list[onnx.NodeProto] = []
        self.depth = 0
        self.types: dict[str, TensorType] = {}
        self.batched: set[str] = set()
        self.states: MutableMapping[str, str] = {}
        self.classifier: Classifier | None = None
        self.arrays: dict[str, np.ndarray] = {}
        self._constants: dict[str, Constant] = {}
        self._aliases: dict[str, str] = {}
        self.blocks = itertools.count()
        self.loop_types: dict[int, dict[int, TensorType]] = {}
        self.budget = Budget.of(program.weights)

    def child(self) -> Graph:
        """A graph for a block inside an operation: it sees every value and has nodes of its own."""
        inner = copy.copy(self)
        inner.nodes = []
        inner.depth = self.depth + 1
        if inner.depth > MOST_DEPTH:
            raise UnsupportedOperationError(
                f"{self.program.package}: its branches and loops are nested too deep; the portable runtime covers "
                f"{MOST_DEPTH} graphs inside each other (a branch takes one, a loop two)"
            )
        return inner

    def declare(self, value: NamedType) -> None:
        """`value` exists from here on. Raises PackageError where the program names two values alike."""
        if value.name in self.types:
            raise PackageError(f"{self.program.package}: value {value.name!r} is defined twice")
        self.types[value.name] = value.type

    def define(self, name: str, constant: Constant) -> None:
        """`name` is a constant. It is decoded, and becomes an initializer, only where something uses it."""
        self._constants[name] = constant

    def alias(self, name: str, target: str) -> None:
        """`name` is another name of `target`: no node stands for it."""
        self._aliases[name] = self._aliases.get(target, target)

    def constant(self, name: str) -> Constant | None:
        return self._constants.get(self._aliases.get(name, name))

    def decode(self, constant: Constant) -> np.ndarray:
        """The constant's elements, floats as Float32 and integers as Int32."""
        self.budget.take_bytes(_DECODED_BYTES * math.prod(constant.type.fixed_shape))
        array = self.program.weights.array(constant)
        if array.dtype.kind in "iu":
            return array.astype(np.int32)
        return array.astype(np.float32) if array.dtype.kind == "f" else array

    def type(self, name: str) -> TensorType:
        """Raises PackageError where the program uses a value before it computes it."""
        if name not in self.types:
            raise PackageError(f"{self.program.package}: value {name!r} is used before it is defined")
        return self.types[name]

    def tensor(self, name: str) -> str:
        """The ONNX name under which the MIL value `name` can be an input of a node."""
        self.type(name)
        name = self._aliases.get(name, name)
        if name in self._constants and name not in self.arrays:
            self.arrays[name] = self.decode(self._constants[name])
        return name

    def initializer(self, name: str, array: np.ndarray) -> str:
        self.budget.take_bytes(array.nbytes)
        self.arrays[name] = array
        return name

    def node(self, op_type: str, inputs: Sequence[str], outputs: str | Sequence[str], **attributes: Any) -> str:
        self.budget.take_steps()
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        self.nodes.append(helper.make_node(op_type, inputs, names, name=names[0], **attributes))
        return names[0]

    def settle(self, operation: Operation, start: int) -> None:
        """After the nodes from `start` on were written for `operation`: compute what is constant, learn what is known.

        In Float16 precision the results are rounded here.
        """
        nodes = self.nodes[start:]
        outputs = [output.name for output in operation.outputs if output.name not in self._constants]
        drawn = any(node.op_type in DRAWS for node in nodes)
        if nodes and outputs and not operation.blocks and not drawn and self._only_constants(operation):
            del self.nodes[start:]
            for name, array in zip(outputs, evaluate(nodes, self.arrays, outputs, self.budget), strict=True):
                self._settle_constant(name, array)
            return
        if any(not self.types[name].fixed for name in outputs):
            self._settle_shapes(nodes, outputs)
        if self.precision == "float16":
            for name in outputs:
                self._round(name)

    def _only_constants(self, operation: Operation) -> bool:
        return all(self.constant(name) is not None for name in operation.references())

    def _settle_constant(self, name: str, array: np.ndarray) -> None:
        type_ = replace(self.types[name], shape=array.shape, rank_known=True)
        if self.precision == "float16" and type_.dtype == "fp16":
            array = array.astype(np.float16)
        self.types[name] = type_
        self.define(name, Immediate(type_, array))

    def _settle_shapes(self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> None:
        self.budget.take_steps(2 * len(nodes))
        shapes = infer(nodes, self.arrays, self.types)
        for name in outputs:
            source = self._aliases.get(name, name)
            known = self.types[source].shape if source in self.types and source != name else shapes.get(source)
            if known is not None:
                check_size(name, known)
                self.types[name] = replace(self.types[name], shape=known, rank_known=True)

    def _round(self, name: str) -> None:
        """To Float16 and back, where the program's type is Float16 and the value was computed."""
        if self.types[name].dtype != "fp16" or name in self._aliases or self.types[name].kind != "tensor":
            return
        self.round_to_half(name)

    def round_to_half(self, name: str) -> None:
        """Whatever takes `name` from here on takes it rounded to Float16."""
        half = self.node("Cast", [name], f"{name}/half", to=onnx.TensorProto.FLOAT16)
        self.alias(name, self.node("Cast", [half], f"{name}/rounded", to=onnx.TensorProto.FLOAT))


class Call:
    """One operation being translated: its arguments read, its nodes written."""

    def __init__(self, graph: Graph, operation: Operation) -> None:
        self.graph = graph
        self.operation = operation

    @property
    def output(self) -> str:
        return self.operation.outputs[0].name

    @property
    def outputs(self) -> list[str]:
        return [output.name for output in self.operation.outputs]

    @property
    def output_type(self) -> TensorType:
        return self.operation.outputs[0].type

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self.operation.blocks

    def unsupported(self, why: str) -> UnsupportedOperationError:
        """The error to raise where a registered operation is used in a way that its translation does not cover."""
        return UnsupportedOperationError(f"{self._where}: {why}; the portable runtime does not cover this")

    def malformed(self, why: str) -> PackageError:
        """The error to raise where the program contradicts the operation's definition."""
        return PackageError(f"{self._where}: {why}")

    @property
    def _where(self) -> str:
        names = ", ".join(self.outputs[:_NAMES_TOLD]) + (", ..." if len(self.outputs) > _NAMES_TOLD else "")
        return f"{self.graph.program.package}: operation {self.operation.type!r} ({names})"

    # --- arguments

    def has(self, parameter: str) -> bool:
        return parameter in self.operation.inputs or parameter in self.operation.attributes

    def tensor(self, parameter: str) -> str:
        """The ONNX name of the argument, an initializer if it is a constant."""
        if parameter in self.operation.attributes:
            return self.initializer(parameter, self.graph.decode(self.operation.attributes[parameter]))
        return self.tensors(parameter)[0]

    def tensors(self, parameter: str) -> list[str]:
        names = []
        for position, argument in enumerate(self._arguments(parameter)):
            if isinstance(argument, Reference):
                names.append(self.graph.tensor(argument.name))
            else:
                names.append(self.initializer(f"{parameter}{position}", self.graph.decode(argument)))
        return names

    def int64(self, parameter: str, *, axis_of_one: bool = False) -> str:
        """The argument as ONNX wants sizes and positions: Int64. With `axis_of_one` a scalar becomes [1]."""
        constant = self._constant(parameter)
        if constant is not None:
            array = self.graph.decode(constant).astype(np.int64)
            return self.initializer(f"{parameter}/int64", array.reshape(-1) if axis_of_one else array)
        name = self.node("Cast", [self.tensor(parameter)], part=f"{parameter}/int64", to=onnx.TensorProto.INT64)
        if axis_of_one and self.shape(parameter) == ():
            shape = self.initializer(f"{parameter}/one", np.array([1], np.int64))
            return self.node("Reshape", [name, shape], part=f"{parameter}/vector")
        return name

    def type(self, parameter: str) -> TensorType:
        return self.types(parameter)[0]

    def types(self, parameter: str) -> list[TensorType]:
        if parameter in self.operation.attributes:
            return [self.operation.attributes[parameter].type]
        arguments = self._arguments(parameter)
        return [self.graph.type(a.name) if isinstance(a, Reference) else a.type for a in arguments]

    def shape(self, parameter: str) -> Shape:
        """None for a size that depends on the data. Raises UnsupportedOperationError where the rank is not known."""
        type_ = self.type(parameter)
        if not type_.rank_known:
            raise self.unsupported(f"the rank of {parameter!r} is not known")
        return type_.shape

    def rank(self, parameter: str) -> int:
        return len(self.shape(parameter))

    def fixed_shape(self, parameter: str) -> list[int]:
        """Raises UnsupportedOperationError where a size depends on the data."""
        shape = self.shape(parameter)
        if None in shape:
            raise self.unsupported(f"the shape of {parameter!r} is not fixed")
        return [size or 0 for size in shape]

    def is_float(self, parameter: str) -> bool:
        return self.type(parameter).dtype in FLOATS

    def batched(self, parameter: str) -> list[bool]:
        """For each of the argument's values, whether its leading dimension is the batch."""
        arguments = self.operation.inputs[parameter]
        return [isinstance(a, Reference) and a.name in self.graph.batched for a in arguments]

    def batched_parameters(self) -> list[str]:
        return [parameter for parameter in self.operation.inputs if any(self.batched(parameter))]

    def is_constant(self, parameter: str) -> bool:
        return self.has(parameter) and self._constant(parameter) is not None

    def reference(self, parameter: str) -> str:
        """The MIL name of an argument that has to be a value of the program, such as a state."""
        argument = self._arguments(parameter)[0]
        if not isinstance(argument, Reference):
            raise self.malformed(f"parameter {parameter!r} is a constant")
        return argument.name

    def _arguments(self, parameter: str) -> Sequence[Any]:
        arguments = self.operation.inputs.get(parameter, ())
        if not arguments:
            raise self.malformed(f"parameter {parameter!r} is missing")
        return arguments

    def _constant(self, parameter: str) -> Constant | None:
        if parameter in self.operation.attributes:
            return self.operation.attributes[parameter]
        argument = self._arguments(parameter)[0]
        return self.graph.constant(argument.name) if isinstance(argument, Reference) else argument

    def array(self, parameter: str) -> np.ndarray:
        """The value of an argument that has to be a constant, floats as Float32, integers as Int32."""
        return self.graph.decode(self._known(parameter))

    def stored_array(self, parameter: str) -> np.ndarray:
        """The same in the element type in which the package stores it."""
        constant = self._known(parameter)
        self.graph.budget.take_bytes(math.prod(constant.type.fixed_shape))
        return self.graph.program.weights.array(constant)

    def _known(self, parameter: str) -> Constant:
        constant = self._constant(parameter) if self.has(parameter) else None
        if constant is None:
            raise self.unsupported(f"parameter {parameter!r} is not a constant")
        return constant

    def ints(self, parameter: str, default: Sequence[int]) -> list[int]:
        return [int(v) for v in self.array(parameter).reshape(-1)] if self.has(parameter) else list(default)

    def integer(self, parameter: str, default: int) -> int:
        return self.ints(parameter, [default])[0]

    def real(self, parameter: str, default: float | None = None) -> float:
        if default is not None and not self.has(parameter):
            return default
        return float(self.array(parameter).item())

    def flag(self, parameter: str, default: bool = False) -> bool:
        return bool(self.array(parameter)) if self.has(parameter) else default

    def text(self, parameter: str, default: str) -> str:
        return str(self.array(parameter)) if self.has(parameter) else default

    def bounded(self, *sizes: int) -> None:
        """To be called before an array of so many elements is made, where the sizes are the program's to choose.

        Raises OverBudgetError where computing with it would take more memory than is left.
        """
        self.graph.budget.take_bytes(_COMPUTED_BYTES * math.prod(max(size, 1) for size in sizes))

    # --- results

    def node(self, op_type: str, inputs: Sequence[str], *, part: str | None = None, **attributes: Any) -> str:
        """Write a node that computes the operation's output or, where `part` is given, a part on the way to it."""
        return self.graph.node(op_type, inputs, f"{self.output}/{part}" if part else self.output, **attributes)

    def nodes(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Write a node with several outputs, named as given ("" for one that nobody needs)."""
        self.graph.node(op_type, inputs, outputs, **attributes)

    def part(self, name: str) -> str:
        """The ONNX name of a part on the way to the output."""
        return f"{self.output}/{name}"

    def initializer(self, part: str, array: np.ndarray) -> str:
        return self.graph.initializer(f"{self.output}/{part}", array)

    def number(self, part: str, value: float) -> str:
        """A Float32 scalar to compute with."""
        return self.initializer(part, np.array(value, np.float32))

    def sizes(self, part: str, values: Sequence[int]) -> str:
        """An Int64 vector: a shape, axes, positions."""
        return self.initializer(part, np.array(values, np.int64))

    def same_as(self, parameter: str) -> None:
        """The output is the argument itself."""
        argument = self._arguments(parameter)[0]
        if isinstance(argument, Reference):
            self.graph.alias(self.output, argument.name)
        else:
            self.graph.define(self.output, argument)

    def define(self, value: np.ndarray) -> None:
        """The output is a constant."""
        self.graph.types[self.output] = replace(self.output_type, shape=value.shape, rank_known=True)
        self.graph.define(self.output, Immediate(self.graph.types[self.output], value))
