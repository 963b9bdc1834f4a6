"""Normalization. Definition: coremltools/converters/mil/mil/ops/defs/iOS15/normalization.py."""

import numpy as np

from harness.runtimes.portable.batch import only
from harness.runtimes.portable.graph import Call
from harness.runtimes.portable.registry import operation


@operation("batch_norm", batch=only("x", rank=3))
def batch_norm(call: Call) -> None:
    mean = call.array("mean")  # [C]
    gamma = call.tensor("gamma") if call.has("gamma") else call.initializer("gamma", np.ones_like(mean))
    beta = call.tensor("beta") if call.has("beta") else call.initializer("beta", np.zeros_like(mean))
    inputs = [call.tensor("x"), gamma, beta, call.tensor("mean"), call.tensor("variance")]
    call.node("BatchNormalization", inputs, epsilon=call.real("epsilon", 1e-5))
