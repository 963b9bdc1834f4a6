"""From a torch network to a Float16 Core AI asset whose zeros are stored as zeros.

The network is the one that Core ML gets: BatchNorm folded in torch, pixels normalized inside. What the file says of
where the code stood that made it (debug information, with this machine's paths) is left out, and names that are drawn
at random are numbered, so that the same network is the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from coreml_prune_bench.models.batchnorm import fold_batchnorm
from coreml_prune_bench.models.conversion import INPUT_NAME, OUTPUT_NAME, weight_parameters, without_metadata
from coreml_prune_bench.models.errors import BenchError, CellFailedError
from coreml_prune_bench.models.layers import prunable_layers
from coreml_prune_bench.models.quiet import silenced
from coreml_prune_bench.models.training import IMAGE_MEAN, IMAGE_STD
from coreml_prune_bench.models.weight_names import weight_output

if TYPE_CHECKING:
    from coreai.authoring import AIProgram

_ALIGNMENT = 16
"""Of the elements of large constants, in bytes. Apple's reader aborts on a small file in which it is larger."""

Kept = Mapping[str, np.ndarray]
"""By layer that is stored sparse: which of its weights are not zero in Float16, bool of the weight's shape."""


def save_coreai(
    model: nn.Module, image_size: int, path: Path, *, sparse: Collection[str] = (), described: Mapping[str, str] = {}
) -> list[StoredWeight]:
    """Convert and write an asset: Float16, uint8 image [1, 3, image_size, image_size] in, logits [1, classes] out.

    model takes normalized float32 [N, 3, H, W] and is in eval mode; it is not changed. Core AI's own image inputs exist
    on macOS alone, so the image is an array of bytes, red first. sparse: the layers whose zeros are stored as such.
    described: `author`, `license`, `model_description`. Returns what is stored of each layer's weight, which the file
    itself does not name.
    Raises CellFailedError where the network cannot be converted.
    """
    folded = without_metadata(fold_batchnorm(model, image_size))
    layers = prunable_layers(folded).items()
    weights = {name: layer.get_parameter("weight").detach().half().numpy() for name, layer in layers}
    kept = {name: weights[name] != 0 for name in sparse}
    pixels = _Pixels(folded).half().eval()
    example = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8)
    with silenced(), torch.no_grad():
        try:
            program = _converted(pixels, example)
        except (BenchError, MemoryError, OSError):
            raise
        except Exception as error:  # of the network's own code, or of operations that Core AI does not know
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CellFailedError(
                f"torch.export and Core AI's converter cannot convert it: {type(error).__name__}: {reason[:400]}"
            ) from error
    _without_origins(program)
    _store(program, weights, kept)
    _save(program, path, described)
    parameters = weight_parameters(model)
    return [
        StoredWeight(
            weight_output(layer, parameters[layer]), weight[kept[layer]] if layer in kept else weight, layer in kept
        )
        for layer, weight in weights.items()
    ]


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """What a constant of the asset holds of a layer's weight: float16, all elements or, where `sparse`, those kept."""

    name: str
    elements: np.ndarray
    sparse: bool


class _Pixels(nn.Module):
    """The network for RGB pixels in [0, 255], uint8 [N, 3, H, W]."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        # Subtract, then multiply: pixels are exact in Float16, and the mean's rounding error then stays below 0.03.
        self.register_buffer("mean", 255 * torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / (255 * torch.tensor(IMAGE_STD).view(1, 3, 1, 1)))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network((pixels.to(self.mean.dtype) - self.mean) * self.scale)


def _converted(model: nn.Module, example: Tensor) -> AIProgram:
    import coreai_torch

    exported = torch.export.export(model, (example,)).run_decompositions(coreai_torch.get_decomp_table())
    converter = coreai_torch.TorchConverter().add_exported_program(
        exported_program=exported, input_names=[INPUT_NAME], output_names=[OUTPUT_NAME]
    )
    return converter.to_coreai()


# --- the program, in MLIR


def _without_origins(program: AIProgram) -> None:
    """Remove debug information, and number the graphs whose names the converter draws."""
    from coreai._compiler.ir import Attribute, StringAttr
    from coreai._compiler.passmanager import PassManager

    module = program._module._mlir_module
    with module.context:
        PassManager.parse("builtin.module(strip-debuginfo)").run(module.operation)
        graphs = _graphs(module)
        renamed = {}
        for number, graph in enumerate(graphs):
            name = StringAttr(graph.attributes["sym_name"]).value
            if "priv" in graph.attributes:
                renamed[name] = f"{name.rpartition('_')[0] or name}_{number}"
                graph.attributes["sym_name"] = StringAttr.get(renamed[name])
        for operation in _operations(graphs):
            if operation.name == "coreai.invoke":
                callee = str(operation.attributes["callee"])  # #param.constant<@name> : !param.symbol
                before = callee.partition("@")[2].partition(">")[0].strip('"')
                if before in renamed:
                    changed = callee.replace(f"@{before}>", f"@{renamed[before]}>")
                    operation.attributes["callee"] = Attribute.parse(changed)


def _operations(graphs: list[Any]) -> Iterator[Any]:
    waiting = list(graphs)
    while waiting:
        operation = waiting.pop(0)
        yield operation
        waiting += [inner.operation for region in operation.regions for block in region.blocks for inner in block]


def _store(program: AIProgram, weights: Mapping[str, np.ndarray], kept: Kept) -> None:
    """Store the weights of `kept` sparse, and large constants under names that do not change from run to run.

    A weight is found by its elements: the program keeps no names. Layers of equal weights have been given one constant;
    each gets its own. Raises CellFailedError where a weight of `kept` is not there.
    """
    from coreai._compiler.ir import DenseResourceElementsAttr

    module = program._module._mlir_module
    waiting = _by_elements(weights)
    with module.context:
        constants = [op for op in _operations(_graphs(module)) if op.name == "coreai.constant"]
        for number, op in enumerate(constants):
            elements = _elements(op)
            layers = [] if elements is None else waiting.get((elements.shape, elements.tobytes()), [])
            own = _one_each(op, len(layers))
            for copy, one in enumerate(own):
                name = f"constant_{number}_{copy}"
                layer = layers.pop(0) if layers else None
                if elements is not None and layer is not None and layer in kept:
                    _store_sparse(one, elements, kept[layer], name)
                elif DenseResourceElementsAttr.isinstance(one.attributes["value"]):
                    one.attributes["value"] = _resource(_bytes(one), name, one.results[0].type)
    for layers in waiting.values():
        for layer in layers:
            if layer in kept:
                raise CellFailedError(f"layer {layer}: its weight is no constant of its own in Core AI's program")


def _one_each(op: Any, layers: int) -> list[Any]:
    """The constant and, where so many layers share it, a copy for each of its uses but one, in the order of these."""
    from coreai._compiler.dialects import coreai
    from coreai._compiler.ir import InsertionPoint

    uses = [(use.owner, use.operand_number) for use in op.results[0].uses]
    if layers < 2 or len(uses) != layers:
        return [op]
    copies = [op]
    with op.context, op.location, InsertionPoint(op):
        for owner, operand in uses[1:]:
            copy: Any = coreai.ConstantOp(value=op.attributes["value"]).operation
            owner.operands[operand] = copy.results[0]
            copies.append(copy)
    return copies


def _by_elements(weights: Mapping[str, np.ndarray]) -> dict[tuple[tuple[int, ...], bytes], list[str]]:
    """The layers by the shape and the elements of their weights, in the network's order."""
    layers: dict[tuple[tuple[int, ...], bytes], list[str]] = {}
    for layer, weight in weights.items():
        layers.setdefault((weight.shape, weight.tobytes()), []).append(layer)
    return layers


def _graphs(module: Any) -> list[Any]:
    return [op.operation for op in module.body.operations if op.operation.name == "coreai.graph"]


def _elements(op: Any) -> np.ndarray | None:
    """The constant's elements, of Float16; None for one of another type."""
    from coreai._compiler.ir import DenseElementsAttr, F16Type, RankedTensorType

    type_ = op.results[0].type
    if not RankedTensorType.isinstance(type_) or not F16Type.isinstance(RankedTensorType(type_).element_type):
        return None
    value = op.attributes["value"]
    if DenseElementsAttr.isinstance(value):
        return np.array(DenseElementsAttr(value), np.float16)
    return _bytes(op).view(np.float16).reshape(RankedTensorType(type_).shape)


def _bytes(op: Any) -> np.ndarray:
    """uint8: a large constant's elements as they stand in memory."""
    from coreai._compiler._mlir_libs._coreaiIR._bindings.compiler import copy_constant_value_to_array
    from coreai._compiler.ir import RankedTensorType

    type_ = RankedTensorType(op.results[0].type)
    element = str(type_.element_type)
    bits = int("".join(letter for letter in element if letter.isdigit()))
    data = np.zeros(-(-int(np.prod(type_.shape)) * bits // 8), np.uint8)
    copy_constant_value_to_array(constant_op=op.opview, destination=data)
    return data


def _resource(data: np.ndarray, name: str, type_: Any) -> Any:
    from coreai._compiler.ir import DenseResourceElementsAttr

    return DenseResourceElementsAttr.get_from_buffer(data.data, name, type_, alignment=_ALIGNMENT)


def _store_sparse(op: Any, elements: np.ndarray, kept: np.ndarray, name: str) -> None:
    """A bit for each element, and the elements that stay, in place of a constant."""
    from coreai._compiler.dialects import coreai
    from coreai._compiler.ir import InsertionPoint, IntegerType, RankedTensorType

    with op.context, op.location, InsertionPoint(op):
        half = RankedTensorType(op.results[0].type).element_type
        stored = np.ascontiguousarray(elements[kept])
        values = _constant_of(stored.view(np.uint8), f"{name}_values", RankedTensorType.get(stored.shape, half))
        bits = np.packbits(kept.reshape(-1), bitorder="little")
        mask = _constant_of(bits, f"{name}_mask", RankedTensorType.get(kept.shape, IntegerType.get_unsigned(1)))
        sparse = coreai.build_sparse_with_bitmask(values=values, bitmask=mask)
        op.results[0].replace_all_uses_with(coreai.sparse_with_bitmask_to_dense(sparse))
    op.erase()


def _constant_of(data: np.ndarray, name: str, type_: Any) -> Any:
    from coreai._compiler._mlir_libs._coreaiIR._bindings.mlir.dialects.coreai import create_elements_attr
    from coreai._compiler.dialects import coreai
    from coreai._compiler.ir import Location

    if data.size:
        return coreai.ConstantOp(value=_resource(data, name, type_)).result
    return coreai.ConstantOp(value=create_elements_attr(Location.unknown(), type_, data.view(np.float16))).result


# --- the file


def _save(program: AIProgram, path: Path, described: Mapping[str, str]) -> None:
    from coreai.runtime import AIModelAssetMetadata

    metadata = AIModelAssetMetadata()
    for key, value in described.items():
        setattr(metadata, key, value)
    if path.exists():
        shutil.rmtree(path)
    program.save_asset(path, metadata)
