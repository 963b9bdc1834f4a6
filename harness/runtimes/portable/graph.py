"""The ONNX graph under construction, and `Call`, the view of it that an operation's translation gets.

It must know no operation by name: what an operation means stands in the `ops_*` modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from harness.errors import UnsupportedOperationError
from harness.runtimes.portable.reader import Constant, Immediate, Operation, Program, Reference, Shape, TensorType

FLOATS = ("fp16", "fp32")
"""The element types that become Float32, in which everything is computed."""

_INTEGERS = ("int8", "int16", "int32", "uint8", "uint16", "uint32")


def onnx_type(dtype: str) -> int:
    """The ONNX element type that stands for a MIL one. Raises KeyError where there is none."""
    names = {name: getattr(onnx.TensorProto, name.upper()) for name in _INTEGERS}
    return {**names, "fp16": onnx.TensorProto.FLOAT, "fp32": onnx.TensorProto.FLOAT, "bool": onnx.TensorProto.BOOL}[
        dtype
    ]


class Graph:
    """Nodes and initializers so far, and what is known of each MIL value: its type, its constant, its batch.

    ONNX names are the MIL names; names that MIL does not have carry a slash, which no MIL identifier can.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes: list[onnx.NodeProto] = []
        self.types: dict[str, TensorType] = {}
        self.batched: set[str] = set()
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._constants: dict[str, Constant] = {}
        self._aliases: dict[str, str] = {}

    @property
    def initializers(self) -> list[onnx.TensorProto]:
        return list(self._initializers.values())

    def define(self, name: str, constant: Constant) -> None:
        """`name` is a constant. It is decoded, and becomes an initializer, only where something uses it."""
        self._constants[name] = constant

    def alias(self, name: str, target: str) -> None:
        """`name` is another name of `target`: no node stands for it."""
        self._aliases[name] = self._aliases.get(target, target)

    def constant(self, name: str) -> Constant | None:
        return self._constants.get(self._aliases.get(name, name))

    def decode(self, constant: Constant) -> np.ndarray:
        """The constant's elements, floats as Float32."""
        array = self.program.weights.array(constant)
        return array.astype(np.float32) if array.dtype.kind == "f" else array

    def tensor(self, name: str) -> str:
        """The ONNX name under which the MIL value `name` can be an input of a node."""
        name = self._aliases.get(name, name)
        if name in self._constants and name not in self._initializers:
            self.initializer(name, self.decode(self._constants[name]))
        return name

    def initializer(self, name: str, array: np.ndarray) -> str:
        self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        return name

    def node(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output


class Call:
    """One operation being translated: its arguments read, its nodes written."""

    def __init__(self, graph: Graph, operation: Operation) -> None:
        self.graph = graph
        self.operation = operation

    @property
    def output(self) -> str:
        return self.operation.outputs[0].name

    @property
    def output_type(self) -> TensorType:
        return self.operation.outputs[0].type

    def unsupported(self, why: str) -> UnsupportedOperationError:
        """The error to raise where a registered operation is used in a way that its translation does not cover."""
        where = f"{self.graph.program.package}: operation {self.operation.type!r} ({self.output})"
        return UnsupportedOperationError(f"{where}: {why}; the portable runtime does not cover this")

    # --- arguments

    def has(self, parameter: str) -> bool:
        return parameter in self.operation.inputs or parameter in self.operation.attributes

    def tensor(self, parameter: str) -> str:
        """The ONNX name of the argument, an initializer if it is a constant."""
        return self.tensors(parameter)[0]

    def tensors(self, parameter: str) -> list[str]:
        names = []
        for position, argument in enumerate(self.operation.inputs[parameter]):
            if isinstance(argument, Reference):
                names.append(self.graph.tensor(argument.name))
            else:
                names.append(self.initializer(f"{parameter}{position}", self.graph.decode(argument)))
        return names

    def type(self, parameter: str) -> TensorType:
        return self.types(parameter)[0]

    def types(self, parameter: str) -> list[TensorType]:
        arguments = self.operation.inputs[parameter]
        return [self.graph.types[a.name] if isinstance(a, Reference) else a.type for a in arguments]

    def shape(self, parameter: str) -> Shape:
        return self.type(parameter).shape

    def is_float(self, parameter: str) -> bool:
        return self.type(parameter).dtype in FLOATS

    def batched(self, parameter: str) -> list[bool]:
        """For each of the argument's values, whether its leading dimension is the batch."""
        arguments = self.operation.inputs[parameter]
        return [isinstance(a, Reference) and a.name in self.graph.batched for a in arguments]

    def batched_parameters(self) -> list[str]:
        return [parameter for parameter in self.operation.inputs if any(self.batched(parameter))]

    def _constant(self, parameter: str) -> Constant | None:
        if parameter in self.operation.attributes:
            return self.operation.attributes[parameter]
        argument = self.operation.inputs[parameter][0]
        return self.graph.constant(argument.name) if isinstance(argument, Reference) else argument

    def array(self, parameter: str) -> np.ndarray:
        """The value of an argument that has to be a constant, floats as Float32."""
        constant = self._constant(parameter) if self.has(parameter) else None
        if constant is None:
            raise self.unsupported(f"parameter {parameter!r} is not a constant")
        return self.graph.decode(constant)

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

    # --- results

    def node(self, op_type: str, inputs: Sequence[str], *, part: str | None = None, **attributes: Any) -> str:
        """Write a node that computes the operation's output or, where `part` is given, a part on the way to it."""
        return self.graph.node(op_type, inputs, f"{self.output}/{part}" if part else self.output, **attributes)

    def initializer(self, part: str, array: np.ndarray) -> str:
        return self.graph.initializer(f"{self.output}/{part}", array)

    def number(self, part: str, value: float) -> str:
        """A Float32 scalar to compute with."""
        return self.initializer(part, np.array(value, np.float32))

    def same_as(self, parameter: str) -> None:
        """The output is the argument itself."""
        argument = self.operation.inputs[parameter][0]
        if isinstance(argument, Reference):
            self.graph.alias(self.output, argument.name)
        else:
            self.graph.define(self.output, argument)

    def define(self, value: np.ndarray) -> None:
        """The output is a constant."""
        self.graph.define(self.output, Immediate(self.output_type, value))
