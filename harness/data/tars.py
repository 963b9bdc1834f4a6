"""Images read in place from a tar file, from tar files inside it too, without unpacking.

A tar has no table of contents, so it is read through once, from header to header; what was found is remembered.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data.remembered import Arrays, remembered
from coreml_prune_bench.data.split import Progress, map_in_threads
from coreml_prune_bench.models.pointers import pointer_problem


@dataclass(frozen=True, eq=False)
class Members:
    """The files in the tar at `path`: names, and where their content starts and how long it is in bytes, int64 [N]."""

    path: Path
    names: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TarSource:
    """Images that are `members`, at the positions `chosen`, int64 [N]."""

    members: Members
    chosen: NDArray[np.int64]

    def open(self, index: int) -> PIL.Image.Image:
        return PIL.Image.open(BytesIO(self._read(int(self.chosen[index]))))

    def digests(self, progress: Progress | None) -> list[str]:
        # Of every member in the tar's own order, so that what is remembered does not depend on the choice.
        def find() -> Arrays:
            digests = map_in_threads(self._digest, len(self.members.names), progress=progress)
            return {"digests": np.frombuffer(b"".join(digests), np.uint8).reshape(-1, hashlib.sha256().digest_size)}

        found = remembered("SHA-256 of members", [self.members.path], find)["digests"]
        return [found[member].tobytes().hex() for member in self.chosen]

    def _digest(self, member: int) -> bytes:
        try:
            return hashlib.sha256(self._read(member)).digest()
        except OSError as error:
            raise DataError(f"cannot read {self.members.path}: {error.strerror or error}") from error

    def _read(self, member: int) -> bytes:
        size = int(self.members.sizes[member])
        with self.members.path.open("rb") as file:
            file.seek(int(self.members.offsets[member]))
            content = file.read(size)
        if len(content) < size:
            raise OSError(f"the archive ends within {self.members.names[member]}")
        return content


def list_tar(path: Path) -> Members:
    """Every file in the tar at `path`, and as `OUTER/NAME` every file in the tars OUTER.tar inside it.

    Folders within are left out of the names. DataError where the tar is damaged, or is none.
    """

    def find() -> Arrays:
        found = list(_members(path))
        return {
            "names": np.frombuffer("\0".join(name for name, _, _ in found).encode(), np.uint8),
            "offsets": np.array([offset for _, offset, _ in found], np.int64),
            "sizes": np.array([size for _, _, size in found], np.int64),
        }

    try:
        arrays = remembered("members", [path], find)
    except (OSError, tarfile.TarError) as error:
        if problem := pointer_problem(path):
            raise DataError(f"{path}: {problem}") from error
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path}: {reason}; expected a whole, uncompressed tar file") from error
    names = tuple(arrays["names"].tobytes().decode().split("\0")) if len(arrays["names"]) else ()
    return Members(path, names, arrays["offsets"], arrays["sizes"])


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each."""
    with path.open("rb") as whole, path.open("rb") as within:
        for name, offset, size in _files(whole, path.stat().st_size):
            outer = PurePosixPath(name)
            if outer.suffix != ".tar":
                yield name, offset, size
                continue
            within.seek(offset)
            for inner, inner_offset, inner_size in _files(within, offset + size):
                yield f"{outer.stem}/{inner}", inner_offset, inner_size


def _files(stream: IO[bytes], end: int) -> Iterator[tuple[str, int, int]]:
    """The files of the tar that starts where `stream` is and ends by `end`."""
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            if member.isfile():
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError(f"the archive ends within {member.name}")
                yield PurePosixPath(member.name).name, member.offset_data, member.size
