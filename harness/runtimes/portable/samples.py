"""Work along the leading dimension of batched values without mixing samples.

A batched value that the program declares as [K, ...] is [N * K, ...], sample after sample. An operation that leaves the
leading dimension alone need not know. One that works along it does so on [N, K, ...], with its axes moved by one, and
its result becomes [N * K', ...] again: two reshapes, which move no data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from coreml_prune_bench.mlprogram.values import TensorType
from coreml_prune_bench.runtimes.portable.graph import Call


def separable(*parameters: str) -> Callable[[Call], bool]:
    """A batch rule: only `parameters` are batched, and the sizes are known that telling samples apart takes."""

    def rule(call: Call) -> bool:
        types = [output.type for output in call.operation.outputs]
        types += [type_ for parameter in parameters if call.has(parameter) for type_ in call.types(parameter)]
        # Nothing is left to tell apart in a value without elements.
        known = all(type_.fixed and type_.shape != () and 0 not in type_.shape for type_ in types)
        return known and set(call.batched_parameters()) <= set(parameters)

    return rule


@dataclass(frozen=True)
class View:
    """A call's values and results, with the samples in a dimension of their own where `shift` is 1.

    The axes that the program gives move by `shift`.
    """

    call: Call
    shift: int

    def tensor(self, parameter: str) -> str:
        return self.tensors(parameter)[0]

    def tensors(self, parameter: str) -> list[str]:
        """Beside a batched value, one that is the same for all samples is repeated for each."""
        call, rows = self.call, self.call.tensors(parameter)
        types, batched = call.types(parameter), call.batched(parameter)
        if not any(batched) or (all(batched) and not self.shift):
            return rows
        first = batched.index(True)
        samples = _apart(call, rows[first], types[first], f"{parameter}{first}")
        values = []
        for i, (row, type_) in enumerate(zip(rows, types, strict=True)):
            if not batched[i]:
                values.append(self._repeated(row, type_, f"{parameter}{i}", samples))
            elif not self.shift:
                values.append(row)
            else:
                values.append(samples if i == first else _apart(call, row, type_, f"{parameter}{i}"))
        return values

    def node(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Write the node that computes the call's output."""
        self.nodes(op_type, inputs, self.call.outputs[:1], **attributes)

    def nodes(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Write a node with several of the call's outputs."""
        results = [f"{output}/apart" for output in outputs] if self.shift else outputs
        self.call.nodes(op_type, inputs, results, **attributes)
        for result, output in zip(results, outputs, strict=True):
            if result != output:
                type_ = next(o.type for o in self.call.operation.outputs if o.name == output)
                self.call.nodes("Reshape", [result, _merged(self.call, type_, f"{output}/merged")], [output])

    def _repeated(self, name: str, type_: TensorType, part: str, samples: str) -> str:
        """`name` as often as there are samples: `samples` leads with their number."""
        call, shape = self.call, type_.fixed_shape
        count = call.node("Shape", [samples], part=f"{part}/samples", start=0, end=1)
        target = call.node("Concat", [count, call.sizes(f"{part}/shape", shape)], part=f"{part}/target", axis=0)
        repeated = call.node("Expand", [name, target], part=f"{part}/repeated")  # [N, K, ...]
        if self.shift:
            return repeated
        return call.node("Reshape", [repeated, _merged(call, type_, f"{part}/merged")], part=f"{part}/rows")


def view(call: Call, *, along_leading: bool) -> View:
    """`along_leading`: the operation works along the leading dimension of what it takes or gives."""
    return View(call, int(along_leading and bool(call.batched_parameters())))


def _apart(call: Call, name: str, type_: TensorType, part: str) -> str:
    shape = call.sizes(f"{part}/apart_shape", [-1, *type_.fixed_shape])
    return call.node("Reshape", [name, shape], part=f"{part}/apart")  # [N, K, ...]


def _merged(call: Call, type_: TensorType, part: str) -> str:
    return call.sizes(part, [-1, *type_.fixed_shape[1:]])  # [N * K, ...]
