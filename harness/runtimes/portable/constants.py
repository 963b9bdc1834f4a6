"""What is known of nodes before a model runs: the values of those that depend on constants alone, the shapes of others.

Own folding is needed although ONNX Runtime folds too: translations read axes, shapes and positions as numbers. It must
know no MIL operation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import checker, helper, numpy_helper, shape_inference

from coreml_prune_bench.mlprogram.budget import Budget
from coreml_prune_bench.mlprogram.values import MOST_BYTES, Shape, TensorType
from coreml_prune_bench.runtimes.portable.engine import start

ONNX_OPSET = 20
"""The first with Gelu."""
IR_VERSION = 9
"""What opset 20 came with."""

_OPSETS = [helper.make_opsetid("", ONNX_OPSET)]
# Shape inference looks at the values of shapes, axes and positions, never at weights.
_MOST_ELEMENTS_OF_A_SHAPE = 1024
_MOST_BYTES_OF_AN_ELEMENT = 8
_SUMS = frozenset(
    {"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "LSTM", "GRU", "RNN", "NonMaxSuppression"}
    | {"AveragePool", "MaxPool", "LpPool"}
)

_STEPS = 12
"""Of computing a constant: it takes a session of its own, a millisecond."""
_PRODUCTS_A_STEP = 100_000

DRAWS = ("RandomUniformLike", "RandomNormalLike", "Multinomial")
"""Nodes whose values are new at every run: these are never constants, whatever they take."""


def evaluate(
    nodes: Sequence[onnx.NodeProto], arrays: Mapping[str, np.ndarray], outputs: Sequence[str], budget: Budget
) -> list[np.ndarray]:
    """The values of `outputs`, computed by `nodes` from `arrays`.

    Raises OverBudgetError where that takes too long or too much memory, one of ONNX_RUNTIME_ERRORS where nodes do not
    fit.
    """
    shapes = infer(nodes, arrays, {})
    computed = [name for node in nodes for name in node.output if name]
    if len(nodes) > 1 and any(None in shapes.get(name, (None,)) for name in computed):
        return _evaluate_in_steps(nodes, arrays, outputs, budget)
    budget.take_steps(_STEPS)
    for node in nodes:
        budget.take_bytes(sum(_most_bytes(shapes.get(name, (None,)), node, arrays) for name in node.output if name))
        budget.take_steps(round(_products(node, arrays, shapes) / _PRODUCTS_A_STEP))
    used = {name for node in nodes for name in node.input}
    initializers = [tensor_proto(name, arrays[name]) for name in sorted(used) if name in arrays]
    graph = helper.make_graph(nodes, "constants", [], [onnx.ValueInfoProto(name=o) for o in outputs], initializers)
    model = helper.make_model(graph, opset_imports=_OPSETS, ir_version=IR_VERSION)
    session = start(model.SerializeToString(), threads=1, optimize=False, most_bytes=None)
    return list(session.run(list(outputs), {}))


def _evaluate_in_steps(
    nodes: Sequence[onnx.NodeProto], arrays: Mapping[str, np.ndarray], outputs: Sequence[str], budget: Budget
) -> list[np.ndarray]:
    """One node after the other: the size of what a node computes may follow from what those before it have computed."""
    known = dict(arrays)
    for node in nodes:
        names = [name for name in node.output if name]
        known.update(zip(names, evaluate([node], known, names, budget), strict=True))
    return [known[name] for name in outputs]


def _most_bytes(shape: Shape, node: onnx.NodeProto, arrays: Mapping[str, np.ndarray]) -> int:
    """What a value may take. How many elements a node picks out follows from the values: at most all there are."""
    given = [arrays[name] for name in node.input if name in arrays]
    largest = max((array.size for array in given), default=1)
    deepest = max((array.ndim for array in given), default=1)  # NonZero gives a position along each axis
    sizes = [largest * (1 + deepest) if size is None else size for size in shape]
    return math.prod(sizes) * _MOST_BYTES_OF_AN_ELEMENT


def _products(node: onnx.NodeProto, arrays: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> float:
    """About how many products a node takes that sums many of them for each of its results."""
    if node.op_type not in _SUMS:
        return 0
    results = sum(_elements(shapes.get(name, ())) for name in node.output if name)
    given = [arrays[name].shape if name in arrays else shapes.get(name, ()) for name in node.input if name]
    windows = [attribute.ints for attribute in node.attribute if attribute.name == "kernel_shape"]
    if windows:
        channels = _elements(given[1][1:2]) if len(given) > 1 else 1  # of a pool there is one
        return results * math.prod(windows[0]) * channels
    if node.op_type == "NonMaxSuppression":  # each box beside each
        return _elements(given[0]) ** 2
    # [M, K] @ [K, N] has M * N results of K products each.
    return math.sqrt(math.prod(_elements(shape) for shape in given[:2]) * results)


def _elements(shape: Shape) -> int:
    return math.prod(size or 1 for size in shape)


def tensor_proto(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)


def check_size(name: str, shape: Shape) -> None:
    """Raises ValueError where a value of that shape would have more than MOST_BYTES."""
    # An open size, and one of zero, must not hide another one.
    if _elements(shape) * 4 > MOST_BYTES:
        raise ValueError(f"{name!r} would have shape {list(shape)}, beyond {MOST_BYTES >> 30} GiB")


def infer(
    nodes: Sequence[onnx.NodeProto], arrays: Mapping[str, np.ndarray], types: Mapping[str, TensorType]
) -> dict[str, Shape]:
    """The shapes of what `nodes` compute, as far as ONNX's own rules give them; None for a size that they do not."""
    known: dict[str, onnx.TypeProto] = {}
    for node in nodes:
        found = {name: _type_of(name, known, arrays, types) for name in node.input if name}
        inputs = {name: type_ for name, type_ in found.items() if type_ is not None}
        if len(inputs) < len(found) or not onnx.defs.has(node.op_type, ONNX_OPSET, node.domain):
            continue
        data = {
            name: numpy_helper.from_array(arrays[name], name)
            for name in inputs
            if name in arrays and arrays[name].size <= _MOST_ELEMENTS_OF_A_SHAPE
        }
        schema = onnx.defs.get_schema(node.op_type, ONNX_OPSET, node.domain)
        try:
            known.update(shape_inference.infer_node_outputs(schema, node, inputs, data, opset_imports=_OPSETS))
        except (RuntimeError, shape_inference.InferenceError, checker.ValidationError):
            continue  # what ONNX cannot tell stays open, and running it will show whether it is right
    return {name: _shape(type_) for name, type_ in known.items() if type_.tensor_type.HasField("shape")}


def _type_of(
    name: str,
    known: Mapping[str, onnx.TypeProto],
    arrays: Mapping[str, np.ndarray],
    types: Mapping[str, TensorType],
) -> onnx.TypeProto | None:
    if name in known:
        return known[name]
    if name in arrays:
        return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(arrays[name].dtype), arrays[name].shape)
    base = name.removesuffix("/rounded")  # a value of the program, in Float16 precision
    if base in types:
        type_ = types[base]
        return helper.make_tensor_type_proto(_element_type(type_.dtype), type_.shape if type_.rank_known else None)
    return None


def _element_type(dtype: str) -> int:
    if dtype.startswith("fp"):
        return onnx.TensorProto.FLOAT
    return onnx.TensorProto.BOOL if dtype == "bool" else onnx.TensorProto.INT32


def _shape(type_: onnx.TypeProto) -> Shape:
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in type_.tensor_type.shape.dim)
