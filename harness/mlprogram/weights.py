"""The weight files of a package: `Weights` reads one constant at a time, mapped and not copied.

No offset and no path is followed that is not checked, and nothing is allocated for a size that is only declared.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.named import refuse_pointer
from coreml_prune_bench.mlprogram.values import Constant, Immediate, Stored, has_nan, packed_bytes, unpacked

# The type code in a blob's metadata for each element type that can stand in weight.bin: BlobDataType in coremltools'
# mlmodel/src/MILBlob.
_STORED_CODES = {
    "fp16": 1,
    "fp32": 2,
    "uint8": 3,
    "int8": 4,
    "int16": 6,
    "uint16": 7,
    "int4": 8,
    "uint1": 9,
    "uint2": 10,
    "uint4": 11,
    "uint3": 12,
    "uint6": 13,
    "int32": 14,
    "uint32": 15,
}

_FILE_HEADER = struct.Struct("<II")  # number of blobs, version
_FILE_VERSION = 2
_BLOB_METADATA = struct.Struct("<IIQQ")  # sentinel, type code, size of the payload, offset of the payload
_BLOB_METADATA_BYTES = 64
_BLOB_SENTINEL = 0xDEADBEEF

DAMAGED = "the package is damaged, build it again"


@dataclass(frozen=True)
class Weights:
    """The weight files beside the model, read one constant at a time. of: what they are part of, for errors."""

    package: Path
    folder: Path
    of: str = ""
    _maps: dict[Path, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def package_bytes(self) -> int:
        """Bytes of the model and of the weight files beside it."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def files(self) -> list[Path]:
        """Those that hold the weights."""
        return [path for path in (self.folder / "weights").rglob("*") if path.is_file()]

    def size_bytes(self, stored: Stored) -> int:
        """Bytes of the payload in the weight file, without metadata and alignment. No element is decoded."""
        return self._locate(stored)[2]

    def array(self, constant: Constant) -> np.ndarray:
        """The constant's elements, in its own element type and shape, mapped from the file and read-only.

        Elements of less than a byte come in bytes. Infinity is a number like others, NaN is refused.
        """
        if isinstance(constant, Immediate):
            return np.asarray(constant.value)
        path, code, size, start = self._locate(constant)
        type_, where = constant.type, _where(path, constant)
        if type_.dtype not in _STORED_CODES:
            raise PackageError(f"{where} has element type {type_.dtype}, which cannot be read yet")
        if code != _STORED_CODES[type_.dtype]:
            raise PackageError(f"{where} is not {type_.dtype} data; {DAMAGED}")
        expected = packed_bytes(type_.dtype, math.prod(type_.fixed_shape))
        if size != expected:
            raise PackageError(f"{where} has {size} bytes, expected {expected} for {list(type_.shape)}; {DAMAGED}")
        array = unpacked(self._map(path)[start : start + size], type_.dtype, type_.fixed_shape)
        if has_nan(array):
            raise PackageError(f"{where} has elements that are not a number (NaN); build the package again")
        return array

    def _map(self, path: Path) -> np.ndarray:
        if path not in self._maps:
            self._maps[path] = np.memmap(path, np.uint8, mode="r")
        return self._maps[path]

    def _locate(self, stored: Stored) -> tuple[Path, int, int, int]:
        """The weight file, the blob's type code, its payload's size and start, all known to lie inside the file."""
        path = self._path(stored)
        refuse_pointer(path)
        file_bytes = path.stat().st_size
        where = _where(path, stored)
        if stored.offset + _BLOB_METADATA_BYTES > file_bytes:
            raise PackageError(f"{where} lies outside the file of {file_bytes} bytes; {DAMAGED}")
        with path.open("rb") as file:
            _, version = _FILE_HEADER.unpack(file.read(_FILE_HEADER.size))
            file.seek(stored.offset)
            sentinel, code, size, start = _BLOB_METADATA.unpack(file.read(_BLOB_METADATA.size))
        if version != _FILE_VERSION:
            raise PackageError(f"{path}: weight file version {version}, expected {_FILE_VERSION}; {DAMAGED}")
        if sentinel != _BLOB_SENTINEL:
            raise PackageError(f"{where} is not the start of a weight; {DAMAGED}")
        if start + size > file_bytes:
            raise PackageError(f"{where} ends at byte {start + size} of {file_bytes}: the file is truncated; {DAMAGED}")
        return path, code, size, start

    def _path(self, stored: Stored) -> Path:
        file = stored.file.removeprefix("@model_path/")
        return path_inside(self.package, self.folder / file, f"the weight file {file}{self.of}")


def _where(path: Path, stored: Stored) -> str:
    return f"{path}: the weight {repr(stored.owner) + ' ' if stored.owner else ''}at offset {stored.offset}"


def path_inside(package: Path, file: Path, what: str) -> Path:
    """The file with links followed. Raises PackageError where it is none, or lies outside the package."""
    try:
        path = file.resolve()
        found, inside = path.is_file(), path.is_relative_to(package.resolve())
    except (ValueError, OSError, RuntimeError) as error:  # a NUL in the name, a name too long, links in a circle
        raise PackageError(f"{package}: {what!a} has a name that no file can have; {DAMAGED}") from error
    if not inside:
        raise PackageError(
            f"{package}: {what} lies outside the package; where that is a link that is meant so, copy the package with "
            "its links followed (cp -rL)"
        )
    if not found:
        raise PackageError(f"{package}: {what} is missing")
    return path
