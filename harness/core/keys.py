"""What a result depends on, as a hash: equal keys mean that measuring again would give the same.

A key covers weights, data, config, seeds, the code of the step and the versions of the packages that it runs on.
"""

import ast
import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parents[1]


def key_of(inputs: dict[str, Any]) -> str:
    """SHA-256 (hex) of JSON-like inputs; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def code_version(*sources: str | Path) -> str:
    """A hash of code: files, or places in the package such as "models/training.py"; a folder stands for its files.

    Comments, formatting and docstrings do not count. Nothing is imported.
    """
    digest = hashlib.sha256()
    for source in sources:
        path = _PACKAGE / source
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(_code_of(file).encode())
    return digest.hexdigest()


def package_versions(*packages: str) -> dict[str, str]:
    """Installed versions by package name."""
    return {package: version(package) for package in packages}


@cache
def _code_of(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
