"""An artifact on its way between machines: its files as one piece of bytes, checked where it arrives."""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from coreml_prune_bench.core.errors import DamagedFileError
from coreml_prune_bench.core.files import MANIFEST
from coreml_prune_bench.records.mirror import send_artifact
from coreml_prune_bench.records.store import Store


@dataclass(frozen=True)
class Parcel:
    """files: an uncompressed zip of them, MANIFEST left out. made: what the store keeps of how they were made.

    An artifact has no key on its way: who receives it keeps it under the key that it has there, which is another one
    where torch has another local suffix.
    """

    made: dict[str, Any]
    files: bytes
    sha256: str

    def __sizeof__(self) -> int:
        """What Dask counts of it: when it moves work, keeps results in memory, and tells what was sent."""
        return object.__sizeof__(self) + len(self.files)

    def unpack(self, empty: Path) -> dict[str, Any]:
        """Write the files into a folder; returns `made`. Raises DamagedFileError where it is not what was sent."""
        found = hashlib.sha256(self.files).hexdigest()
        if found != self.sha256:
            raise DamagedFileError(f"an artifact arrived damaged: SHA-256 {found[:12]}, sent as {self.sha256[:12]}")
        empty.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(io.BytesIO(self.files)) as archive:
            archive.extractall(empty)  # never outside of the folder, whatever names it holds
        return self.made


def pack(store: Store, folder: Path) -> Parcel:
    """The artifact in this folder of the store."""
    return pack_folder(folder, store.manifest(folder))


def pack_folder(folder: Path, made: dict[str, Any]) -> Parcel:
    """Any folder, such as a package; a file of its own that is named MANIFEST stays behind."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", strict_timestamps=False) as archive:
        for path in sorted(folder.rglob("*")):
            if path.name != MANIFEST or path.parent != folder:
                archive.write(path, path.relative_to(folder))
    files = buffer.getvalue()
    return Parcel(made, files, hashlib.sha256(files).hexdigest())


def put(store: Store, key: str, parcel: Parcel) -> Path:
    """The artifact `key` of the store, unpacked where it is not there yet."""
    return store.artifact(key, parcel.unpack)


def send_to(address: str, key: str, parcel: Parcel, scratch: Path) -> None:
    """The artifact `key` of the results at an address, by way of `scratch`. Raises BenchError of one line."""
    with TemporaryDirectory(dir=scratch) as name:
        send_artifact(address, Path(name), put(Store(Path(name)), key, parcel))
