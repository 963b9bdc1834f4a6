"""Unpack a zip or tar file that a stranger made: nothing leaves the folder, and it ends at a size.

Only folders and plain files are made, with this user's own permissions; what macOS adds beside them is left out.
"""

import errno
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from coreml_prune_bench.core.errors import BenchError

_MOST_ENTRIES = 10_000
_CHUNK_BYTES = 1 << 20
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, struct.error)
_NOT_THE_ARCHIVES = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


class ArchiveError(BenchError):
    """An archive that is damaged, too large, or not to be trusted."""


@dataclass(frozen=True)
class _Entry:
    """kind: "file", "folder", or what else it is, in words. open: for a file, its content."""

    name: str
    kind: str
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, *, limit_bytes: int) -> None:
    """Unpack `archive` into `folder`, which is empty. Raises ArchiveError; the folder is then to be thrown away.

    limit_bytes: of all unpacked files together, as they are counted and not as the archive says.
    """
    left = limit_bytes
    with _telling(archive):
        for number, entry in enumerate(_entries(archive)):
            if number == _MOST_ENTRIES:
                raise ArchiveError(f"{archive.name} holds more than {_MOST_ENTRIES:,} files")
            path = folder / _safe(archive, entry)
            if _is_finders(entry.name):
                continue
            if entry.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with entry.open() as content, path.open("xb") as file:
                while chunk := content.read(_CHUNK_BYTES):
                    left -= len(chunk)
                    if left < 0:
                        raise ArchiveError(f"{archive.name} unpacks to more than {limit_bytes:,} bytes")
                    file.write(chunk)


def _entries(archive: Path) -> Iterator[_Entry]:
    with archive.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                yield _Entry(info.filename, _zip_kind(info), partial(zipped.open, info))
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                yield _Entry(member.name, _tar_kind(member), partial(_content, tar, member))


def _zip_kind(info: zipfile.ZipInfo) -> str:
    type_ = stat.S_IFMT(info.external_attr >> 16)  # 0 from systems that know no types
    if info.flag_bits & 1:
        return "an encrypted file"
    if type_ not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or device"
    return "folder" if info.is_dir() else "file"


def _tar_kind(member: tarfile.TarInfo) -> str:
    return "file" if member.isfile() else "folder" if member.isdir() else "a link or device"


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # a file
    return content


def _safe(archive: Path, entry: _Entry) -> PurePosixPath:
    path = PurePosixPath(entry.name)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.name or "\0" in entry.name:
        raise ArchiveError(f"{archive.name}: {entry.name!r} leads out of the folder; nothing was unpacked")
    if entry.kind not in ("file", "folder"):
        raise ArchiveError(f"{archive.name}: {entry.name!r} is {entry.kind}; expected files and folders alone")
    return path


def _is_finders(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parts[:1] == ("__MACOSX",) or path.name == ".DS_Store" or path.name.startswith("._")


@contextmanager
def _telling(archive: Path) -> Iterator[None]:
    """What the archive is to blame for, as one line."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ArchiveError(f"{archive.name} names {Path(error.filename).name!r} twice") from error
    except OSError as error:
        if error.errno in _NOT_THE_ARCHIVES:
            raise
        raise ArchiveError(f"{archive.name} cannot be unpacked: {error.strerror or error}") from error
    except _DAMAGED as error:
        raise ArchiveError(f"{archive.name} is damaged, or neither zip nor tar: {error}") from error
    except (NotImplementedError, ValueError) as error:
        raise ArchiveError(f"{archive.name} cannot be unpacked: {error}") from error
