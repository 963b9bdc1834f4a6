"""Attention. Definition: coremltools/converters/mil/mil/ops/defs/iOS18/transformers.py."""

import math

import numpy as np

from coreml_prune_bench.runtimes.portable.batch import broadcast
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation


@operation("scaled_dot_product_attention", batch=broadcast)
def scaled_dot_product_attention(call: Call) -> None:
    """softmax(query @ key.T / sqrt(E) + mask) @ value, over the last two dimensions."""
    rank = call.rank("key")
    embedding = call.shape("query")[-1]
    if embedding is None:
        raise call.unsupported("the size of the embedding is not fixed")
    perm = [*range(rank - 2), rank - 1, rank - 2]
    transposed = call.node("Transpose", [call.tensor("key")], part="key/transposed", perm=perm)
    products = call.node("MatMul", [call.tensor("query"), transposed], part="products")
    scores = call.node("Mul", [products, call.number("scale", 1 / math.sqrt(embedding))], part="scores")
    if call.has("attn_mask"):
        scores = _masked(call, scores)
    call.node("MatMul", [call.node("Softmax", [scores], part="weights", axis=-1), call.tensor("value")])


def _masked(call: Call, scores: str) -> str:
    """A mask of floats is added; one of booleans says what takes part."""
    mask = call.tensor("attn_mask")
    if call.is_float("attn_mask"):
        return call.node("Add", [scores, mask], part="masked")
    return call.node("Where", [mask, scores, call.number("out", -np.inf)], part="masked")
