"""Small `.aimodel` packages from MLIR's text, in a few milliseconds and without torch's export. Needs coreai-core.

Serialized by Apple's own writer, so that whatever the text says stands in a file as Apple's reader has it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

coreai = pytest.importorskip("coreai.authoring", reason="coreai-core is not installed")

from coreai._compiler._mlir_libs._coreaiIR._bindings.compiler import serialize_module_to_bytecode  # noqa: E402
from coreai._compiler.ir import Module  # noqa: E402
from coreai.authoring import Context  # noqa: E402
from coreai.runtime import _AIModelAsset  # noqa: E402

from coreml_prune_bench.aimodel.reader import HASH, METADATA, OWN_METADATA  # noqa: E402
from coreml_prune_bench.mlprogram.named import BYTECODE  # noqa: E402

_TYPES = {"float16": "f16", "float32": "f32", "int32": "si32", "uint32": "ui32", "uint8": "ui8", "bool": "i1"}
_BYTECODE_VERSION = 6


def from_text(path: Path, module: str, own: Mapping[str, Any] | None = None) -> Path:
    """A package of that module. own: what this project writes into its metadata."""
    path.mkdir(parents=True)
    serialize_module_to_bytecode(
        module=Module.parse(module, context=Context()._mlir_context),
        package_path=path / BYTECODE,
        dialect_version=_AIModelAsset._dialect_version_for_os("v27"),
        bytecode_version=_BYTECODE_VERSION,
    )
    defined = {} if own is None else {"creatorDefinedMetadata": {OWN_METADATA: own}}
    (path / METADATA).write_text(json.dumps({"assetVersion": "2.0", **defined}))
    return stamped(path)


def stamped(package: Path) -> Path:
    """The package, whose hash is that of its program again."""
    (package / HASH).write_bytes(hashlib.sha256((package / BYTECODE).read_bytes()).digest())
    return package


def graph(body: str, name: str = "main", x: str = "tensor<4xf32>", y: str = "tensor<4xf32>", kind: str = "") -> str:
    """A graph whose input is %x, called "x", and whose output is %y, called "y". kind: "private", or nothing."""
    names = ('{coreai.name = "x"}', '{coreai.name = "y"}') if not kind else ("", "")
    return (
        f"coreai.graph {kind} @{name}(%x: {x} {names[0]}) -> ({y} {names[1]}) attributes {{__coreai_pure__}} {{\n"
        f"{body}\ncoreai.output %y : {y}\n}}\n"
    )


def constant(array: np.ndarray) -> str:
    """An operation that makes it, without the result's name."""
    type_ = f"tensor<{''.join(f'{size}x' for size in array.shape)}{_TYPES[array.dtype.name]}>"
    if array.dtype == bool:
        return f"coreai.constant dense<{json.dumps(array.tolist())}> : {type_}"
    return f'coreai.constant dense<"0x{array.tobytes().hex().upper()}"> : {type_}'


def resources(**arrays: np.ndarray) -> str:
    """What ends a module whose constants are `dense_resource<NAME>`: their bytes, behind the alignment."""
    listed = ", ".join(f'{name}: "0x10000000{array.tobytes().hex().upper()}"' for name, array in arrays.items())
    return f"\n{{-# dialect_resources: {{ builtin: {{ {listed} }} }} #-}}"


def classifier(path: Path, convolution: np.ndarray, linear: np.ndarray, dtype: str = "float32") -> Path:
    """An image classifier of 8 x 8 pixels: a convolution [8, 3, 3, 3], ReLU, the mean of each channel, and a layer
    [8, classes] whose weight is stored sparse."""
    t, (_, classes) = _TYPES[dtype], linear.shape
    kept = linear != 0
    values, mask = linear[kept].astype(dtype), np.packbits(kept.reshape(-1), bitorder="little")
    dense = f"tensor<8x{classes}x{t}"
    sparse = (
        f"{dense}, #coreai.sparse_tensor_encoding<bitmask, numNonZero = {values.size}, posWidth = 1, crdWidth = 1>>"
    )
    image, seen, mean = (f"tensor<1x{size}x{t}>" for size in ("3x8x8", "8x6x6", "8x1x1"))
    body = f"""
        %w = {constant(convolution.astype(dtype))}
        %kept = coreai.constant dense_resource<kept> : tensor<{values.size}x{t}>
        %mask = coreai.constant dense_resource<mask> : tensor<8x{classes}xui1>
        %scale = {constant(np.array(1 / 255, dtype))}
        %ones = {constant(np.ones(2, np.uint32))}
        %one = {constant(np.array(1, np.uint32))}
        %axes = {constant(np.array([2, 3], np.int32))}
        %size = {constant(np.array([1, 8], np.uint32))}
        %f = coreai.cast %x : tensor<1x3x8x8xui8> to {image}
        %s = coreai.decomposable.broadcasting_mul %f, %scale : ({image}, tensor<{t}>) -> {image}
        %c = coreai.conv2d %s, %w, %ones, %ones, %one :
          ({image}, tensor<8x3x3x3x{t}>, tensor<2xui32>, tensor<2xui32>, tensor<ui32>) -> {seen}
        %r = coreai.relu %c : ({seen}) -> {seen}
        %m = coreai.reduce_mean %r, %axes : ({seen}, tensor<2xsi32>) -> {mean}
        %v = coreai.reshape %m, %size : ({mean}, tensor<2xui32>) -> tensor<1x8x{t}>
        %b = coreai.build_sparse_with_bitmask %kept, %mask :
          (tensor<{values.size}x{t}>, tensor<8x{classes}xui1>) -> {sparse}
        %l = coreai.sparse_with_bitmask_to_dense %b : {sparse} -> {dense}>
        %y = coreai.decomposable.broadcasting_batch_matmul %v, %l :
          (tensor<1x8x{t}>, {dense}>) -> tensor<1x{classes}x{t}>"""
    module = graph(body, x="tensor<1x3x8x8xui8>", y=f"tensor<1x{classes}x{t}>")
    return from_text(path, f"module {{ {module} }}{resources(kept=values, mask=mask)}", {"image": "x"})
