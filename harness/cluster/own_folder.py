"""A temporary folder for the processes that a command starts; where it is killed, the next such command removes it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

PREFIX = "bench-cluster-"


@contextmanager
def own_folder() -> Iterator[Path]:
    """The folder, for its user alone. Its lock lies beside it, held from before it is there until it is gone."""
    temporary = Path(tempfile.gettempdir())
    for left in temporary.glob(f"{PREFIX}*.lock"):
        with suppress(Timeout, OSError), FileLock(left, timeout=0):  # else it is in use, or another user's
            _remove(left.with_suffix(""))
    folder = temporary / f"{PREFIX}{uuid4().hex[:12]}"
    with FileLock(folder.with_suffix(".lock"), mode=0o600):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            _remove(folder)


def _remove(folder: Path) -> None:
    """The folder and its lock, which the caller holds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)
