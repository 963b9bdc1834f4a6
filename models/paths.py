"""Paths as a user writes them, who need not know which shell takes `~` for a home folder, and where."""

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """With the home folder in place of a leading `~` or `~NAME`; as it is where there is no such home."""
    return Path(os.path.expanduser(path))
