"""Saving packages: the dense baseline, and what a full disk does to it."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from coreml_prune_bench.bench.formats.protocol import PackageFormat


def save_dense(model: nn.Module, image_size: int, path: Path, package_format: "PackageFormat") -> None:
    """The dense baseline as a package, checked. Raises CellFailedError where it is not what it should be."""
    whole(path, lambda: package_format.save_dense(model, image_size, path))
    package_format.check(path, None, None)


def whole(path: Path, save: Callable[[], None]) -> None:
    """Save to `path`. Raises OSError that says so where the disk is full."""
    try:
        save()
    except shutil.Error as error:
        # Saving copies a tree, and that error hides what stopped the copies.
        if f"[Errno {errno.ENOSPC}]" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
