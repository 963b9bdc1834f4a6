"""What makes a package that returns scores one that returns labels: the end of a classifier, as Core ML knows it.

Vision, Xcode and coremltools understand it: `classLabel`, the best class, and `classLabel_probs`, a dictionary of all.
The program and its weights stay as they are; operations are added behind them.
"""

from collections.abc import Sequence
from typing import Any

from coreml_prune_bench.core.errors import PackageError

LABEL = "classLabel"
PROBABILITIES = "classLabel_probs"
SOFTMAX = "probabilities"

_FLOAT32 = "scores_cast_to_fp32"


def add_softmax(model: Any) -> None:
    """Let a program return softmax(scores) over its last dimension, as `probabilities` in Float32, in place of scores.

    model: coremltools' message of a model, changed in place. In Float32, in which no small probability becomes zero, so
    that the order of classes is that of the scores. Raises PackageError unless it returns one array.
    """
    block, scores = _end_of(model)
    scores = _in_float32(block, scores)
    _constant(block, "softmax_axis", "INT32").ints.values.append(-1)
    softmax = _operation(block, "softmax", SOFTMAX, x=scores.name, axis="softmax_axis")
    softmax.outputs.add(name=SOFTMAX).type.CopyFrom(scores.type)
    block.outputs[:] = [SOFTMAX]
    output = model.description.output[0]
    output.name = SOFTMAX
    _set_type(output.type.multiArrayType, "FLOAT32")


def add_labels(model: Any, labels: Sequence[str]) -> None:
    """Let a program return the label of its highest score, and a dictionary of all scores by label, in their place.

    model: coremltools' message of a model, changed in place. Raises PackageError unless it returns one array of as many
    scores as there are labels.
    """
    block, scores = _end_of(model)
    sizes = [dimension.constant.size for dimension in scores.type.tensorType.dimensions]
    if not sizes or sizes[-1] != len(labels) or any(size != 1 for size in sizes[:-1]):
        raise PackageError(f"its output {scores.name!r} has shape {sizes}, expected [1, {len(labels)}]: a label each")
    scores = _in_float32(block, scores)
    classify = _operation(block, "classify", "classify", probabilities=scores.name)
    classes = classify.inputs["classes"].arguments.add().value
    _set_type(classes.type.listType.type.tensorType, "STRING")
    classes.type.listType.length.constant.size = len(labels)
    for label in labels:
        member = classes.immediateValue.list.values.add()
        _set_type(member.type.tensorType, "STRING")
        member.immediateValue.tensor.strings.values.append(label)
    _set_type(classify.outputs.add(name=LABEL).type.tensorType, "STRING")
    dictionary = classify.outputs.add(name=PROBABILITIES).type.dictionaryType
    _set_type(dictionary.keyType.tensorType, "STRING")
    _set_type(dictionary.valueType.tensorType, "FLOAT64")
    block.outputs[:] = [LABEL, PROBABILITIES]
    description = model.description
    del description.output[:]
    description.output.add(name=LABEL).type.stringType.SetInParent()
    description.output.add(name=PROBABILITIES).type.dictionaryType.stringKeyType.SetInParent()
    description.predictedFeatureName, description.predictedProbabilitiesName = LABEL, PROBABILITIES


def _end_of(model: Any) -> tuple[Any, Any]:
    """The block of a program, and the value that it returns. Raises PackageError where that is not one array."""
    functions = model.mlProgram.functions
    name = model.description.defaultFunctionName or "main"
    if name not in functions or len(functions) > 1:
        raise PackageError("it has several functions, expected a program that classifies")
    body = functions[name]
    block = body.block_specializations[body.opset]
    values = {output.name: output for operation in block.operations for output in operation.outputs}
    found = values.get(block.outputs[0]) if len(block.outputs) == 1 else None
    if found is None or found.type.WhichOneof("type") != "tensorType":
        raise PackageError(f"it returns {', '.join(block.outputs)}, expected one array of scores")
    return block, found


def _in_float32(block: Any, scores: Any) -> Any:
    """The scores as a value of Float32, cast where they are of another type."""
    tensor = scores.type.tensorType
    if tensor.dataType == _number_of(tensor, "FLOAT32"):
        return scores
    dtype = f"{_FLOAT32}_dtype"
    _constant(block, dtype, "STRING").strings.values.append("fp32")
    cast = _operation(block, "cast", _FLOAT32, x=scores.name, dtype=dtype).outputs.add(name=_FLOAT32)
    cast.type.CopyFrom(scores.type)
    _set_type(cast.type.tensorType, "FLOAT32")
    return cast


def _operation(block: Any, kind: str, name: str, **inputs: str) -> Any:
    operation = block.operations.add(type=kind)
    for parameter, value in inputs.items():
        operation.inputs[parameter].arguments.add(name=value)
    _set_text(operation.attributes["name"], name)
    return operation


def _constant(block: Any, name: str, dtype: str) -> Any:
    """The value, still empty, of a new constant without dimensions."""
    constant = block.operations.add(type="const")
    _set_type(constant.outputs.add(name=name).type.tensorType, dtype)
    _set_type(constant.attributes["val"].type.tensorType, dtype)
    _set_text(constant.attributes["name"], name)
    return constant.attributes["val"].immediateValue.tensor


def _set_text(value: Any, text: str) -> None:
    _set_type(value.type.tensorType, "STRING")
    value.immediateValue.tensor.strings.values.append(text)


def _set_type(tensor: Any, dtype: str) -> None:
    tensor.dataType = _number_of(tensor, dtype)


def _number_of(tensor: Any, dtype: str) -> int:
    """Of a data type, in protobuf's enumeration."""
    return int(tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_name[dtype].number)
