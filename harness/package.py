"""What a Core ML package holds: inputs, outputs, operations, and each weight's storage, sparsity and size.

Everything is read from the saved package, sparsity from the stored mask bits, so it is true of the file that ships.
It must import neither torch nor onnx, and must run nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from harness.errors import PackageError
from harness.runtimes.portable import decompress
from harness.runtimes.portable.reader import Constant, Feature, Operation, Program, Stored, numpy_name, read

_DEPLOYMENT_TARGETS = {
    6: "iOS15 / macOS12",
    7: "iOS16 / macOS13",
    8: "iOS17 / macOS14",
    9: "iOS18 / macOS15",
    10: "iOS26 / macOS26",
}

_STORAGE = {
    "const": "dense",
    "constexpr_sparse_to_dense": "sparse",
    "constexpr_lut_to_dense": "palettized",
    "constexpr_affine_dequantize": "affine-quantized",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class FeatureSummary(_Frozen):
    """An input or output. An image's shape is (H, W, C); None is a size that the model leaves open."""

    name: str
    kind: Literal["image", "array"]
    shape: tuple[int | None, ...]
    dtype: str
    color_space: str | None = None


class WeightSummary(_Frozen):
    """One weight as it is stored.

    `storage` is dense, sparse, palettized, affine-quantized, or the operation's name where it is another.
    `sparsity` is the fraction of zeros among its elements, None where the storage cannot be decoded.
    `size_bytes` is the payload in weight.bin: mask and non-zero values for a sparse weight.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    storage: str
    elements: int
    zeros: int | None
    sparsity: float | None
    size_bytes: int


class PackageSummary(_Frozen):
    """A package at a glance.

    `elements` counts the elements of all weights. `whole_model_sparsity` is zeros over elements among the weights of
    rank 2 or more (biases and BatchNorm vectors are left out), whether pruned or not; None where one of them cannot be
    decoded. `weight_bytes` is the size of the weight file, `package_bytes` that of all files in the package.
    """

    inputs: tuple[FeatureSummary, ...]
    outputs: tuple[FeatureSummary, ...]
    specification_version: int
    deployment_target: str
    operations: dict[str, int]
    weights: tuple[WeightSummary, ...]
    elements: int
    whole_model_sparsity: float | None
    weight_bytes: int
    package_bytes: int

    def weight_of_layer(self, layer: str) -> WeightSummary:
        """The weight of the torch layer `layer`, such as "features.0.0".

        coremltools writes a parameter's dots as underscores and appends how it is stored:
        `features_0_0_weight_to_fp16`, `features_0_0_weight_to_fp16_sparsified`. A convolution whose
        BatchNorm the converter folded has lost its name.
        Raises PackageError unless exactly one weight is called so.
        """
        stem = re.escape(re.sub(r"\W", "_", layer))
        pattern = re.compile(rf"_?{stem}_weight(_to_fp(16|32))?(_[a-z]+)*")
        found = [weight for weight in self.weights if pattern.fullmatch(weight.name)]
        if len(found) != 1:
            names = ", ".join(weight.name for weight in found) or "no weight with its name"
            raise PackageError(f"layer {layer!r}: expected one weight in the package, found {names}")
        return found[0]


def read_package(path: str | Path) -> PackageSummary:
    """Summarize the package at `path`. Raises PackageError where it cannot be read."""
    program = read(path)
    weights = tuple(_weight(program, operation) for operation in program.operations if _is_weight(operation))
    counts = Counter(operation.type for operation in program.operations if operation.type != "const")
    version = program.specification_version
    return PackageSummary(
        inputs=tuple(_feature(feature) for feature in program.inputs),
        outputs=tuple(_feature(feature) for feature in program.outputs),
        specification_version=version,
        deployment_target=_DEPLOYMENT_TARGETS.get(version, f"unknown (specification version {version})"),
        operations=dict(counts.most_common()),
        weights=weights,
        elements=sum(weight.elements for weight in weights),
        whole_model_sparsity=_whole_model_sparsity(weights),
        weight_bytes=_files_bytes(program.weights.folder / "weights"),
        package_bytes=_files_bytes(program.package),
    )


def _feature(feature: Feature) -> FeatureSummary:
    return FeatureSummary(
        name=feature.name,
        kind=feature.kind,
        shape=feature.shape,
        dtype=feature.dtype,
        color_space=feature.color_space,
    )


def _is_weight(operation: Operation) -> bool:
    if operation.type == "const":
        value = operation.attributes.get("val")
        return isinstance(value, Stored) and len(value.type.shape) >= 1
    return operation.type.startswith("constexpr_")


def _weight(program: Program, operation: Operation) -> WeightSummary:
    output = operation.outputs[0]
    shape = output.type.fixed_shape
    elements = math.prod(shape)
    zeros = _zeros(program, operation, shape)
    return WeightSummary(
        name=output.name,
        shape=shape,
        dtype=numpy_name(output.type.dtype),
        storage=_STORAGE.get(operation.type, operation.type),
        elements=elements,
        zeros=zeros,
        sparsity=None if zeros is None else zeros / elements,
        size_bytes=sum(program.weights.size_bytes(c) for c in _constants(operation) if isinstance(c, Stored)),
    )


def _constants(operation: Operation) -> list[Constant]:
    """A compressed weight's data: attributes until iOS17, inputs since iOS18."""
    given = [argument for arguments in operation.inputs.values() for argument in arguments]
    return [*operation.attributes.values(), *(argument for argument in given if isinstance(argument, Constant))]


def _zeros(program: Program, operation: Operation, shape: tuple[int, ...]) -> int | None:
    data = {key: program.weights.array(value) for key, value in operation.attributes.items()}
    try:
        match operation.type:
            case "const":
                dense = data["val"]
            case "constexpr_sparse_to_dense" if "mask" in data:
                # From the mask, without its padding bits: what is stored is not zero by definition.
                dense = decompress.mask_bits(data["mask"], shape)
            case "constexpr_affine_dequantize" if "quantized_data" in data:
                dense = decompress.affine_dequantize(
                    data["quantized_data"], data["zero_point"], data["scale"], int(data["axis"])
                )
            case "constexpr_lut_to_dense" if "lut" in data:
                dense = decompress.lut_to_dense(data["lut"], data["indices"], shape)
            case _:
                return None
    except ValueError as error:
        raise PackageError(f"{program.package}: weight {operation.outputs[0].name}: {error}") from error
    return int(dense.size - np.count_nonzero(dense))


def _whole_model_sparsity(weights: tuple[WeightSummary, ...]) -> float | None:
    matrices = [weight for weight in weights if len(weight.shape) >= 2]
    zeros = [weight.zeros for weight in matrices if weight.zeros is not None]
    if len(zeros) != len(matrices) or not matrices:
        return None
    return sum(zeros) / sum(weight.elements for weight in matrices)


def _files_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
