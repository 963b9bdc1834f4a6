"""Random numbers: shape, range and distribution are the definition's, the values are not Core ML's.

Definition: coremltools/converters/mil/mil/ops/defs/iOS15/random.py.

Each operation has a generator of its own, which starts from its seed when the model is loaded and goes on from one
prediction to the next. Where the program gives no seed, one follows from the operation's name, so that what was
measured can be measured again: operations differ from each other, a model loaded twice draws the same.
"""

from __future__ import annotations

import hashlib

import numpy as np
import onnx

from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import keep_samples_apart, operation

_SEEDS = 1 << 24
"""ONNX has seeds as Float32: the integers up to here are exact."""


@operation("random_uniform")
def random_uniform(call: Call) -> None:
    """In [low, high); low where both are the same."""
    low, high = call.real("low", 0.0), call.real("high", 1.0)
    if high < low:
        raise call.malformed(f"it draws from {low:g} to {high:g}")
    if high == low:
        call.node("Expand", [call.number("low", low), call.int64("shape")])
        return
    drawn = _draw(call, "RandomUniformLike", part="drawn", low=low, high=high)
    # Rounding may reach `high`, which is excluded.
    element = np.float16 if call.output_type.dtype == "fp16" else np.float32
    highest = max(float(np.nextafter(element(high), element(low))), low)
    call.node("Min", [drawn, call.number("highest", highest)])


@operation("random_normal")
def random_normal(call: Call) -> None:
    mean, deviation = call.real("mean", 0.0), call.real("stddev", 1.0)
    if deviation < 0:
        raise call.malformed(f"its standard deviation is {deviation:g}")
    _draw(call, "RandomNormalLike", mean=mean, scale=deviation)


@operation("random_bernoulli")
def random_bernoulli(call: Call) -> None:
    """1 with the probability `prob`, else 0."""
    probability = call.real("prob", 0.5)
    if not 0 <= probability <= 1:
        raise call.malformed(f"its probability is {probability:g}")
    drawn = _draw(call, "RandomUniformLike", part="drawn", low=0.0, high=1.0)  # below 1
    hit = call.node("Less", [drawn, call.number("prob", probability)], part="hit")
    call.node("Cast", [hit], to=onnx.TensorProto.FLOAT)


@operation("random_categorical")
def random_categorical(call: Call) -> None:
    """Positions along the last dimension of x, drawn with replacement: [..., classes] becomes [..., size]."""
    mode, size, shape = call.text("mode", "logits"), call.integer("size", 1), call.shape("x")
    if mode not in ("logits", "probs") or not shape or size < 1:
        raise call.malformed(f"it draws {size} of the {mode} {list(shape)}")
    keep_samples_apart(call)
    x = call.tensor("x")
    if mode == "probs":
        x = call.node("Log", [x], part="logits")
    last = call.node("Shape", [x], part="classes", start=-1)
    rows = call.node(
        "Reshape", [x, call.node("Concat", [call.sizes("open", [-1]), last], part="rows", axis=0)], part="2d"
    )
    drawn = call.node(
        "Multinomial", [rows], part="drawn", dtype=onnx.TensorProto.INT32, sample_size=size, seed=_seed(call)
    )
    leading = call.node("Shape", [x], part="leading", end=-1)
    target = call.node("Concat", [leading, call.sizes("size", [size])], part="target", axis=0)
    positions = call.node("Reshape", [drawn, target], part="positions")
    call.node("Cast", [positions], to=onnx.TensorProto.FLOAT)


def _draw(call: Call, op_type: str, *, part: str | None = None, **distribution: float) -> str:
    """Float32 of the shape that the program asks for, from an ONNX operation that takes a tensor's shape."""
    keep_samples_apart(call)
    like = call.node("ConstantOfShape", [call.int64("shape")], part="like")
    return call.node(op_type, [like], part=part, dtype=onnx.TensorProto.FLOAT, seed=_seed(call), **distribution)


def _seed(call: Call) -> float:
    """Mixed, since ONNX Runtime's generator begins near zero for every small seed."""
    given = call.integer("seed", -1)
    source = call.output if given < 0 else str(given)
    return float(int.from_bytes(hashlib.sha256(source.encode()).digest()[:8]) % _SEEDS)
