"""What coremltools writes as several operations and a direct export to ONNX as one, as one again.

ONNX Runtime fuses by patterns that exports have: a hard-swish that it does not know leaves a convolution, its input and
its output in three layouts. A rewrite must compute the same function of real numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import helper

# As the translations of thresholded_relu (x >= -3) and sigmoid_hard (x / 6 + 1 / 2) write them.
_THRESHOLD = {"alpha": np.nextafter(np.float32(-3), np.float32(-np.inf))}
_HARD_SIGMOID = {"alpha": np.float32(1 / 6), "beta": np.float32(0.5)}


def simplify(nodes: Sequence[onnx.NodeProto], returned: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes of a graph that returns the values `returned`."""
    producers = {output: node for node in nodes for output in node.output}
    uses = Counter([*used_names(nodes), *returned])
    rewritten: dict[str, onnx.NodeProto] = {}
    gone: set[str] = set()
    for node in nodes:
        parts = _hard_swish_parts(node, producers)
        if parts is not None and [uses[part.output[0]] for part in parts] == [2, 1]:
            name = node.output[0]
            rewritten[name] = helper.make_node("HardSwish", parts[0].input[:1], [name], name=name)
            gone.update(part.output[0] for part in parts)
    return [rewritten.get(node.output[0], node) for node in nodes if node.output[0] not in gone]


def used_names(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """The values that the nodes take, one for each use, nested graphs included."""
    used = [name for node in nodes for name in node.input]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                used += [*used_names(attribute.g.node), *(value.name for value in attribute.g.output)]
    return used


def _hard_swish_parts(
    node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]
) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """The threshold and the sigmoid of x * (x >= -3) * clip(x / 6 + 1 / 2, 0, 1), if `node` is their product.

    Below -3 the sigmoid is zero, so that the threshold changes nothing.
    """
    if node.op_type != "Mul":
        return None
    for x, y in (node.input, reversed(node.input)):
        threshold, sigmoid = producers.get(x), producers.get(y)
        if (
            threshold is not None
            and sigmoid is not None
            and sigmoid.input[0] == x
            and _is(threshold, "ThresholdedRelu", _THRESHOLD)
            and _is(sigmoid, "HardSigmoid", _HARD_SIGMOID)
        ):
            return threshold, sigmoid
    return None


def _is(node: onnx.NodeProto, op_type: str, numbers: dict[str, np.float32]) -> bool:
    found = {attribute.name: np.float32(attribute.f) for attribute in node.attribute}
    return node.op_type == op_type and found == numbers
