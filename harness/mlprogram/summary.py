"""What a Core ML package holds: inputs, outputs, operations, and each weight's storage, sparsity and size.

Everything is read from the saved package, sparsity from the stored mask bits, so it is true of the file that ships.
It must import neither torch nor onnx, and must run nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.core.files import files_of
from coreml_prune_bench.mlprogram import decompress
from coreml_prune_bench.mlprogram.budget import Budget, OverBudgetError
from coreml_prune_bench.mlprogram.program import Feature, Operation, Program
from coreml_prune_bench.mlprogram.reader import read
from coreml_prune_bench.mlprogram.values import Argument, Reference, Stored, numpy_name, packed_bytes
from coreml_prune_bench.models.weight_names import WEIGHT, marked, names_of_weight

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
    "constexpr_lut_to_sparse": "palettized",
    "constexpr_affine_dequantize": "affine-quantized",
    "constexpr_blockwise_shift_scale": "blockwise-quantized",
    "constexpr_sparse_blockwise_shift_scale": "blockwise-quantized",
    "constexpr_cast": "cast",
}

_VALUES = {
    "const": "val",
    "constexpr_affine_dequantize": "quantized_data",
    "constexpr_blockwise_shift_scale": "data",
    "constexpr_cast": "source_val",
    "constexpr_lut_to_dense": "indices",
    "constexpr_lut_to_sparse": "indices_nonzero_data",
    "constexpr_sparse_blockwise_shift_scale": "nonzero_data",
    "constexpr_sparse_to_dense": "nonzero_data",
}
"""The parameter that has an operation's values, a number or an index for each element."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class FeatureSummary(_Frozen):
    """An input or output. An image's shape is (H, W, C); None is a size that the model leaves open."""

    name: str
    kind: Literal["image", "array", "label", "probabilities"]
    shape: tuple[int | None, ...]
    dtype: str
    color_space: str | None = None


class WeightSummary(_Frozen):
    """One weight as it is stored.

    `storage` is dense, sparse, palettized, affine-quantized, blockwise-quantized, cast, or the operation's name where
    it is another. A weight that is compressed twice has both: "sparse + palettized".
    `bits` is what one stored value takes, a palettized one's index; None where that cannot be told.
    `sparsity` is the fraction of zeros among its elements, None where the storage cannot be decoded.
    `size_bytes` is the payload in weight.bin: mask and non-zero values for a sparse weight.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    storage: str
    bits: int | None = None
    elements: int
    zeros: int | None
    sparsity: float | None
    size_bytes: int


class PackageSummary(_Frozen):
    """A package at a glance.

    `elements` counts the elements of all weights. `whole_model_sparsity` is zeros over elements among the weights of
    rank 2 or more (biases and BatchNorm vectors are left out), whether pruned or not; None where one of them cannot be
    decoded. `weight_bytes` is the size of the weight file, `package_bytes` that of all files that belong to
    the package.
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
        `features_0_0_weight_to_fp16`, `features_0_0_weight_to_fp16_sparsified`. Before a digit it puts `var_`, or `op_`
        once that is compressed. One that was quantized before is `features_0_0_weight_cast_fp16`. One that another
        tensor would have been called as has a mark, `conv1_1_weight_1f2e3d4c_to_fp16`. A convolution whose BatchNorm
        the converter folded has lost its name.
        Raises PackageError unless exactly one weight is called so.
        """
        mark = marked(layer)
        called = names_of_weight(layer, mark if any(mark in weight.name for weight in self.weights) else WEIGHT)
        found = [weight for weight in self.weights if called.fullmatch(weight.name)]
        if len(found) != 1:
            names = ", ".join(weight.name for weight in found) or "no weight with its name"
            raise PackageError(f"layer {layer!r}: expected one weight in the package, found {names}")
        return found[0]


def read_package(path: str | Path) -> PackageSummary:
    """Summarize the `.mlpackage` at `path`. Raises PackageError where it cannot be read."""
    return summarize(read(path))


def summarize(program: Program) -> PackageSummary:
    """What `read_package` says of a program that was read. Raises PackageError where a weight cannot be decoded."""
    budget = Budget.of(program.weights)
    weights = tuple(_weight(program, chain, budget) for chain in _chains(program, budget))
    counts = Counter(operation.type for operation in program.operations if operation.type != "const")
    version = program.specification_version
    no_part = set(program.package.rglob("*")) - set(files_of(program.package))
    return PackageSummary(
        inputs=tuple(_feature(feature) for feature in program.inputs),
        outputs=tuple(_feature(feature) for feature in program.outputs),
        specification_version=version,
        deployment_target=_deployment_target(program),
        operations=dict(counts.most_common()),
        weights=weights,
        elements=sum(weight.elements for weight in weights),
        whole_model_sparsity=_whole_model_sparsity(weights),
        weight_bytes=_bytes_of(program.weights.files(), no_part),
        package_bytes=_bytes_of(program.package.rglob("*"), no_part),
    )


def kept_in(program: Program, names: Collection[str]) -> dict[str, NDArray[np.bool_]]:
    """Where the weights of those names are not zero, in their shapes: of a sparse weight, what is stored.

    Raises PackageError where one of them cannot be decoded.
    """
    budget = Budget.of(program.weights)
    chains = [chain for chain in _chains(program, budget) if _name(chain[-1]) in names]
    kept = {_name(chain[-1]): _kept(program, chain, budget) for chain in chains}
    if lacking := [name for name in names if kept.get(name) is None]:
        raise PackageError(f"{program.package}: weight {lacking[0]} is not there, or its storage cannot be decoded")
    return {name: found for name, found in kept.items() if found is not None}


def _feature(feature: Feature) -> FeatureSummary:
    return FeatureSummary(
        name=feature.name,
        kind=feature.kind,
        shape=feature.shape,
        dtype=feature.dtype,
        color_space=feature.color_space,
    )


Chain = tuple[Operation, ...]
"""The operations that make one weight, in the program's order: its own last, before it those that make its data."""


def _chains(program: Program, budget: Budget) -> list[Chain]:
    """One for each weight. What is only data of another weight, as a quantized lookup table, is none."""
    made: dict[str, Chain] = {}
    data: set[str] = set()
    for operation in program.operations:
        if operation.type != "const" and not operation.type.startswith("constexpr_"):
            continue
        references = [argument.name for argument in _arguments(operation) if isinstance(argument, Reference)]
        if missing := [name for name in references if name not in made]:
            raise PackageError(f"{program.package}: weight {_name(operation)}: {missing[0]!r} is no constant")
        # Without repetition: a mask and its data come from one operation.
        chain = tuple(dict.fromkeys(link for name in references for link in made[name]))
        with _within_budget(program, operation):
            budget.take_steps(1 + len(chain))
        made.update({output.name: (*chain, operation) for output in operation.outputs})
        data.update(references)
    weights = dict.fromkeys(chain for chain in made.values() if _is_weight(chain[-1]))
    return [chain for chain in weights if not any(output.name in data for output in chain[-1].outputs)]


def _is_weight(operation: Operation) -> bool:
    if operation.type != "const":
        return True
    value = operation.attributes.get("val")
    return isinstance(value, Stored) and len(value.type.shape) >= 1


def _name(operation: Operation) -> str:
    return operation.outputs[0].name


def _arguments(operation: Operation) -> list[Argument]:
    """What an operation is given: a compressed weight's data are attributes until iOS17, inputs since iOS18."""
    given = [argument for arguments in operation.inputs.values() for argument in arguments]
    return [*operation.attributes.values(), *given]


def _weight(program: Program, chain: Chain, budget: Budget) -> WeightSummary:
    output = chain[-1].outputs[0]
    elements = math.prod(output.type.fixed_shape)
    kept = _kept(program, chain, budget)
    zeros = None if kept is None else int(kept.size - np.count_nonzero(kept))
    return WeightSummary(
        name=output.name,
        shape=output.type.fixed_shape,
        dtype=numpy_name(output.type.dtype),
        storage=_storage(chain),
        bits=_bits(chain),
        elements=elements,
        zeros=zeros,
        sparsity=None if zeros is None or not elements else zeros / elements,
        size_bytes=_size_bytes(program, chain),
    )


def _storage(chain: Chain) -> str:
    """The weight's own form first, then its data's."""
    types = [operation.type for operation in reversed(chain) if operation is chain[-1] or operation.type != "const"]
    return " + ".join(dict.fromkeys(_STORAGE.get(type_, type_) for type_ in types))


def _size_bytes(program: Program, chain: Chain) -> int:
    """Data that two operations of the chain read count once."""
    stored = [argument for operation in chain for argument in _arguments(operation) if isinstance(argument, Stored)]
    return sum({(s.file, s.offset): program.weights.size_bytes(s) for s in stored}.values())


def _bits(chain: Chain) -> int | None:
    """Followed from the weight's own operation to the constant that has its values."""
    made_by = {output.name: operation for operation in chain for output in operation.outputs}
    operation = chain[-1]
    while operation.type in _VALUES:
        given = {**{name: arguments[0] for name, arguments in operation.inputs.items()}, **operation.attributes}
        values = given.get(_VALUES[operation.type])
        if isinstance(values, Reference):
            operation = made_by[values.name]
            continue
        lut = given.get("lut")
        if operation.type == "constexpr_lut_to_dense" and "shape" in given and lut and not isinstance(lut, Reference):
            return (math.prod(lut.type.fixed_shape) - 1).bit_length()  # indices that coremltools packed for iOS16
        return None if values is None else packed_bytes(values.type.dtype, 8)
    return None


def _kept(program: Program, chain: Chain, budget: Budget) -> NDArray[np.bool_] | None:
    if any(operation.type not in ("const", *decompress.OPERATIONS) for operation in chain):
        return None
    values: dict[str, np.ndarray] = {}
    output = chain[-1].outputs[0]
    with _within_budget(program, chain[-1]):
        budget.take_steps(len(chain))
        budget.take_bytes(4 * sum(_elements(operation) for operation in chain))  # two, or one of Float32
    try:
        for operation in chain[:-1]:
            arrays = _arrays(operation, _data(program, operation, values))
            values.update(zip((output.name for output in operation.outputs), arrays, strict=True))
        data = _data(program, chain[-1], values)
        # From the mask, without its padding bits: what is stored is not zero by definition.
        sparse = chain[-1].type == "constexpr_sparse_to_dense"
        (dense,) = (decompress.stored(data),) if sparse else _arrays(chain[-1], data)
    except (LookupError, ValueError, TypeError) as error:
        raise PackageError(f"{program.package}: weight {output.name}: {error}") from error
    if dense.shape != output.type.shape:
        shapes = f"{list(dense.shape)}, declared as {list(output.type.shape)}"
        raise PackageError(f"{program.package}: weight {output.name} has shape {shapes}")
    return np.asarray(dense != 0)


@contextmanager
def _within_budget(program: Program, operation: Operation) -> Iterator[None]:
    try:
        yield
    except OverBudgetError as error:
        raise PackageError(f"{program.package}: weight {_name(operation)}: {error}") from error


def _elements(operation: Operation) -> int:
    return max((math.prod(output.type.fixed_shape) for output in operation.outputs), default=0)


def _arrays(operation: Operation, data: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    if operation.type == "const":
        return (data["val"],)
    return decompress.decompressed(operation.type, data, _elements(operation))


def _data(program: Program, operation: Operation, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An operation's parameters by name; `values` has what the operations before it computed."""
    given = {parameter: arguments[0] for parameter, arguments in operation.inputs.items()}
    return {
        parameter: values[argument.name] if isinstance(argument, Reference) else program.weights.array(argument)
        for parameter, argument in {**given, **operation.attributes}.items()
    }


def _whole_model_sparsity(weights: tuple[WeightSummary, ...]) -> float | None:
    # A bias can have the rank of what it is added to: [1, C, 1, 1].
    matrices = [weight for weight in weights if sum(size > 1 for size in weight.shape) >= 2]
    zeros = [weight.zeros for weight in matrices if weight.zeros is not None]
    if len(zeros) != len(matrices) or not matrices:
        return None
    return sum(zeros) / sum(weight.elements for weight in matrices)


def _bytes_of(files: Iterable[Path], no_part: set[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file() and file not in no_part)


def _deployment_target(program: Program) -> str:
    version = program.specification_version
    if not version:  # of another format, which says it itself
        return program.opset
    return _DEPLOYMENT_TARGETS.get(version, f"unknown (specification version {version})")
