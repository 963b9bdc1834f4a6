"""What Apple's converters write as several operations and a direct export to ONNX as one, as one again.

ONNX Runtime fuses by patterns that exports have: a hard-swish or a bound that it does not know leaves a convolution,
its input and its output in three layouts. A rewrite must compute the same function of real numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

# As the translations of thresholded_relu (x >= -3) and sigmoid_hard (x / 6 + 1 / 2) write them.
_THRESHOLD = {"alpha": np.nextafter(np.float32(-3), np.float32(-np.inf))}
_HARD_SIGMOID = {"alpha": np.float32(1 / 6), "beta": np.float32(0.5)}

_OPERANDS = 2
"""Of an elementwise operation that is looked at, and of a pad with the value that it adds beside its sizes."""


def simplify(
    nodes: Sequence[onnx.NodeProto], returned: Iterable[str], arrays: Mapping[str, np.ndarray]
) -> list[onnx.NodeProto]:
    """The nodes of a graph that returns the values `returned`; `arrays` are its constants, by name."""
    graph = _Graph({output: node for node in nodes for output in node.output}, Counter(used_names(nodes)), arrays)
    graph.uses.update(returned)
    gone: set[str] = set()
    for node in nodes:
        for rule in (_bound, _hard_sigmoid, _thresholded_hard_swish, _hard_swish, _padded_pool):
            found = rule(node, graph)
            if found is not None:  # what another rule may find in turn, at a later node
                rewritten, parts = found
                graph.producers[node.output[0]] = rewritten
                gone.update(part.output[0] for part in parts)
                break
    return [graph.producers[node.output[0]] for node in nodes if node.output[0] not in gone]


def used_names(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """The values that the nodes take, one for each use, nested graphs included."""
    used = [name for node in nodes for name in node.input]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                used += [*used_names(attribute.g.node), *(value.name for value in attribute.g.output)]
    return used


@dataclass(frozen=True)
class _Graph:
    producers: dict[str, onnx.NodeProto]
    uses: Counter[str]
    arrays: Mapping[str, np.ndarray]

    def maker(self, name: str, *op_types: str, uses: int = 1) -> onnx.NodeProto | None:
        """The node of one of these types that makes the value, for so many uses and no other."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type in op_types and self.uses[name] == uses else None

    def scalar(self, name: str) -> np.float32 | None:
        """The Float32 constant, where it has no dimensions that broadcasting could add."""
        array = self.arrays.get(name)
        return np.float32(array) if array is not None and array.shape == () and array.dtype == np.float32 else None

    def with_scalar(self, node: onnx.NodeProto) -> tuple[str, str, np.float32] | None:
        """Of a value and a constant in any order: the value's name, the constant's and the constant."""
        if len(node.input) != _OPERANDS:
            return None
        for name, other in (node.input, reversed(node.input)):
            constant = self.scalar(other)
            if constant is not None and self.scalar(name) is None:
                return name, other, constant
        return None


_Found = tuple[onnx.NodeProto, tuple[onnx.NodeProto, ...]]
"""What stands for a node, and the nodes that go with it."""


def _made(node: onnx.NodeProto, op_type: str, inputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, node.output, name=node.output[0], **attributes)


def _bound(node: onnx.NodeProto, graph: _Graph) -> _Found | None:
    """min(max(x, low), high), or the other way round, where low <= high."""
    if node.op_type not in ("Min", "Max"):
        return None
    outer = graph.with_scalar(node)
    inner_node = graph.maker(outer[0], "Max" if node.op_type == "Min" else "Min") if outer else None
    inner = graph.with_scalar(inner_node) if inner_node is not None else None
    if outer is None or inner_node is None or inner is None:
        return None
    low, high = (inner, outer) if node.op_type == "Min" else (outer, inner)
    if not low[2] <= high[2]:
        return None
    return _made(node, "Clip", [inner[0], low[1], high[1]]), (inner_node,)


def _hard_sigmoid(node: onnx.NodeProto, graph: _Graph) -> _Found | None:
    """clip(x + 3, 0, 6) / 6."""
    if node.op_type != "Div" or graph.scalar(node.input[1]) != 6:
        return None
    clip = graph.maker(node.input[0], "Clip")
    if clip is None or [graph.scalar(bound) for bound in clip.input[1:]] != [0, 6]:
        return None
    moved = graph.maker(clip.input[0], "Add")
    parts = graph.with_scalar(moved) if moved is not None else None
    if moved is None or parts is None or parts[2] != 3:
        return None
    return _made(node, "HardSigmoid", parts[:1], **_HARD_SIGMOID), (clip, moved)


def _hard_swish(node: onnx.NodeProto, graph: _Graph) -> _Found | None:
    """x * clip(x / 6 + 1 / 2, 0, 1)."""
    if node.op_type != "Mul":
        return None
    for x, y in (node.input, reversed(node.input)):
        sigmoid = graph.maker(y, "HardSigmoid")
        if sigmoid is not None and sigmoid.input[0] == x and _has(sigmoid, _HARD_SIGMOID):
            return _made(node, "HardSwish", [x]), (sigmoid,)
    return None


def _thresholded_hard_swish(node: onnx.NodeProto, graph: _Graph) -> _Found | None:
    """The same of x * (x >= -3): below -3 the sigmoid is zero, so that the threshold changes nothing."""
    if node.op_type != "Mul":
        return None
    for x, y in (node.input, reversed(node.input)):
        threshold, sigmoid = graph.maker(x, "ThresholdedRelu", uses=2), graph.maker(y, "HardSigmoid")
        if (
            threshold is not None
            and sigmoid is not None
            and sigmoid.input[0] == x
            and _has(threshold, _THRESHOLD)
            and _has(sigmoid, _HARD_SIGMOID)
        ):
            return _made(node, "HardSwish", threshold.input[:1]), (threshold, sigmoid)
    return None


def _padded_pool(node: onnx.NodeProto, graph: _Graph) -> _Found | None:
    """The largest of windows over what is padded with minus infinity: a padding of the pool's own adds nothing."""
    pad = graph.maker(node.input[0], "Pad") if node.op_type == "MaxPool" else None
    if pad is None or len(pad.input) != _OPERANDS + 1 or graph.scalar(pad.input[2]) != -np.inf:
        return None
    if any(attribute.name == "mode" and attribute.s != b"constant" for attribute in pad.attribute):
        return None
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    sizes, kernel = graph.arrays.get(pad.input[1]), given["kernel_shape"]
    if sizes is None or sizes.size != _OPERANDS * (len(kernel) + 2):
        return None
    ends = sizes.reshape(_OPERANDS, -1)
    pads = [*ends[0, 2:].tolist(), *ends[1, 2:].tolist()]
    sums = [a + b for a, b in zip(pads, given.get("pads", [0] * len(pads)), strict=True)]
    # ONNX Runtime has no padding as large as the kernel.
    if ends[:, :2].any() or min(sums) < 0 or any(s >= k for s, k in zip(sums, [*kernel, *kernel], strict=True)):
        return None
    return _made(node, "MaxPool", pad.input[:1], **{**given, "pads": sums}), (pad,)


def _has(node: onnx.NodeProto, numbers: dict[str, np.float32]) -> bool:
    return {attribute.name: np.float32(attribute.f) for attribute in node.attribute} == numbers
