"""The packages and config files that the published table links: fetched, kept, and checked ever after.

    CACHE/published/<name>.mlpackage, <name>.yaml    what was fetched, unpacked
    CACHE/published/published.lock.json              the hash of each, from its first download on

A file is never replaced: one that is not what the lock says is refused, here and on the server.
Imports neither torch nor coremltools, and an HTTP library only to download.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from pydantic import BaseModel, Field

import coreml_prune_bench.models.networks  # noqa: F401  (registers the networks)
from coreml_prune_bench.core.cache_folder import Use, cache_folder, use
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.files import file_hash, tree_hash, tree_hash_of_all, write_atomically
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.published.archive import ArchiveError, unpack
from coreml_prune_bench.published.table import PublishedRow, read_table
from coreml_prune_bench.records.schemas import read_as

_LOCK = "published.lock.json"
_INCOMING = ".incoming"
_LIMIT_BYTES = 1 << 30
"""Of a download, and of what it unpacks to. The largest package holds 51 MB."""
_PACKAGE_SUFFIX = ".mlpackage"

Progress = Callable[[str, int, int | None], None]
"""Called with (file, bytes done, bytes in all where they are known)."""


class ChangedFileError(BenchError):
    """A file that is not the one that was downloaded first."""


@dataclass(frozen=True)
class PublishedPackage:
    """A package that was fetched. sha256: of its files, as the lock has it. use: keeps it there."""

    row: PublishedRow
    path: Path
    sha256: str
    use: Use | None = field(default=None, repr=False, compare=False)

    @property
    def title(self) -> str:
        """In a table, in the place of the algorithm."""
        return f"{self.row.algorithm}, published package" if self.row.sparsity else "published package"

    def check(self) -> None:
        """Raises ChangedFileError if a file of the package is not what was downloaded."""
        if not _has(self.path, self.sha256):
            raise ChangedFileError(_changed_here(self.path))


@dataclass(frozen=True)
class Fetched:
    """What is there of one address. new: whether it was downloaded now."""

    url: str
    path: Path
    size_bytes: int
    sha256: str
    new: bool


class _Locked(BaseModel):
    """One address. sha256 and size_bytes: of the file as downloaded. content_sha256: of what is kept of it."""

    sha256: str
    size_bytes: int
    content_sha256: str
    first_fetched: str


class _Lock(BaseModel):
    """The lock file: what each address held at its first download."""

    schema_version: Literal[1] = 1
    files: dict[str, _Locked] = Field(default_factory=dict)


def rows_of(networks: list[str] | None) -> list[PublishedRow]:
    """The rows of these networks, named as in suites; all if None. Raises BenchError where there is none."""
    table = read_table()
    if networks is None:
        return table
    titles = {get_network(name).title: name for name in networks}
    if missing := titles.keys() - {row.model for row in table}:
        raise BenchError(f"no package of {titles[min(missing)]} was published: leave it out of --models")
    return [row for row in table if row.model in titles]


def published_folder() -> Path:
    """Where what is fetched is kept."""
    return cache_folder() / "published"


def published_packages(network: str) -> list[PublishedPackage]:
    """The fetched packages of one network, the dense one first, as in the table.

    Raises BenchError if the table has none of them or one is not there. Their content is not read: see `check`.
    """
    folder = published_folder()
    lock = _read_lock(folder)
    found = []
    for row in rows_of([network]):
        path, locked = folder / _name(row.package_url), lock.files.get(row.package_url)
        if locked is None or not path.is_dir():
            raise BenchError(f"{path} is not there: run `coreml-prune-bench fetch-published` first")
        found.append(PublishedPackage(row, path, locked.content_sha256, use(path)))
    return found


def fetch(
    rows: list[PublishedRow],
    folder: Path,
    *,
    progress: Progress = lambda file, done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[Fetched], list[str]]:
    """Download what the rows link, and check what is in `folder` already. Returns what is there, and what went wrong.

    Raises UnreachableError where the server cannot be reached. Calls at the same time wait for each other.
    """
    from coreml_prune_bench.published.download import DownloadError

    (folder / _INCOMING).mkdir(parents=True, exist_ok=True)
    fetched, problems = [], []
    with _alone(folder, say):
        for url in dict.fromkeys(url for row in rows for url in row.urls):
            try:
                fetched.append(_fetch(url, folder, progress))
            except (DownloadError, ArchiveError, ChangedFileError) as error:
                problems.append(str(error))
    return fetched, problems


@contextmanager
def _alone(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another fetch-published is at work in {folder}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(url: str, folder: Path, progress: Progress) -> Fetched:
    from coreml_prune_bench.published.download import download

    lock, path = _read_lock(folder), folder / _name(url)
    known = lock.files.get(url)
    if path.exists():
        if known is None or not _has(path, known.content_sha256):
            raise ChangedFileError(_changed_here(path))
        return Fetched(url, path, known.size_bytes, known.sha256, new=False)
    incoming = folder / _INCOMING / _file_name(url)
    if not incoming.exists():
        download(url, incoming, lambda done, total: progress(incoming.name, done, total), limit_bytes=_LIMIT_BYTES)
    sha256, size_bytes = file_hash(incoming), incoming.stat().st_size
    if known is not None and known.sha256 != sha256:
        incoming.unlink()
        raise ChangedFileError(
            f"{url} is not the file that it was on {known.first_fetched[:10]}: SHA-256 {sha256}, expected "
            f"{known.sha256}; to take the new one, remove its entry from {folder / _LOCK}"
        )
    try:
        content = _unpacked(incoming) if path.suffix == _PACKAGE_SUFFIX else incoming
    except ArchiveError:
        incoming.unlink()  # so that the next call downloads it anew
        raise
    if known is None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        lock.files[url] = _Locked(
            sha256=sha256, size_bytes=size_bytes, content_sha256=_hash(content), first_fetched=now
        )
        write_atomically(folder / _LOCK, lock.model_dump_json(indent=2) + "\n")
    os.replace(content, path)
    incoming.unlink(missing_ok=True)
    shutil.rmtree(_unpacking(incoming), ignore_errors=True)
    return Fetched(url, path, size_bytes, sha256, new=True)


def _unpacked(archive: Path) -> Path:
    """The one package in the archive, unpacked beside it. Raises ArchiveError."""
    folder = _unpacking(archive)
    shutil.rmtree(folder, ignore_errors=True)  # of a call that was killed
    folder.mkdir()
    try:
        unpack(archive, folder, limit_bytes=_LIMIT_BYTES)
        packages = [path for path in folder.rglob(f"*{_PACKAGE_SUFFIX}") if (path / "Manifest.json").is_file()]
        if len(packages) != 1:
            raise ArchiveError(f"{archive.name} holds {len(packages)} Core ML packages; expected one")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return packages[0]


def _unpacking(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}.unpacked")


def _read_lock(folder: Path) -> _Lock:
    path = folder / _LOCK
    if not path.is_file():
        return _Lock()
    return read_as(
        _Lock, "lock of published packages", path.read_bytes(), str(path), f"; restore it, or remove {folder}"
    )


def _file_name(url: str) -> str:
    return PurePosixPath(urlsplit(url).path).name


def _name(url: str) -> str:
    """Of what is kept: a package without the archive around it."""
    return _file_name(url).removesuffix(".zip")


def _changed_here(path: Path) -> str:
    return f"{path} is not what was downloaded, as {_LOCK} beside it has it; move it away and run fetch-published again"


def _has(content: Path, sha256: str) -> bool:
    """Whether what is kept has that hash. Lock files from before 0.2 have that of every file in a package's folder."""
    return _hash(content) == sha256 or (content.is_dir() and tree_hash_of_all(content) == sha256)


def _hash(content: Path) -> str:
    """As records have it for a package."""
    return tree_hash(content) if content.is_dir() else file_hash(content)
