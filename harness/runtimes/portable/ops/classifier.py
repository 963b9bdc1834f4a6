"""The end of a classifier. Definition: coremltools/converters/mil/mil/ops/defs/iOS15/classify.py.

ONNX has no dictionaries: the model returns the scores, and the session makes label and dictionary of them.
"""

import numpy as np

from coreml_prune_bench.mlprogram.values import Immediate, Reference
from coreml_prune_bench.runtimes.portable.batch import only
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.interface import Classifier
from coreml_prune_bench.runtimes.portable.registry import operation


def _scores_lead_with_batch(call: Call) -> bool:
    return only("probabilities", rank=2)(call) and call.shape("probabilities")[0] == 1


@operation("classify", batch=_scores_lead_with_batch)
def classify(call: Call) -> None:
    label, probabilities = call.outputs
    if call.graph.classifier:
        raise call.unsupported("the program has classified already")
    call.graph.classifier = Classifier(label, probabilities, _classes(call))
    batched = any(call.batched("probabilities"))
    # [N, classes], whatever dimensions of one the scores have
    shape = call.sizes("shape", [0 if batched else 1, len(call.graph.classifier.classes)])
    call.nodes("Reshape", [call.tensor("probabilities"), shape], [probabilities])


def _classes(call: Call) -> tuple[str | int, ...]:
    argument = call.operation.inputs["classes"][0]
    constant = call.graph.constant(argument.name) if isinstance(argument, Reference) else argument
    if not isinstance(constant, Immediate):
        raise call.unsupported("its classes are not in the program")
    members = [np.asarray(member).item() for member in constant.value]
    return tuple(member if isinstance(member, str) else int(member) for member in members)
