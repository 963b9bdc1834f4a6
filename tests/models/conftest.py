"""A folder with a user's own network."""

from pathlib import Path

import pytest

from tests.models.own_files import BLOCK, NET, SUITE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "blocks.py").write_text(BLOCK)
    (tmp_path / "mine.toml").write_text(SUITE)
    return tmp_path
