"""What a result depends on, as a hash: equal keys mean that measuring again would give the same.

A key covers weights, data, config, seeds, the code of the step and the versions of the packages that it runs on. The
code of a step is every module of the project that its entry points import, directly or not, also where a function
imports it: which those are is asked of grimp, so that no list of them can be out of date.
"""

import ast
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grimp

from coreml_prune_bench.core.cache_folder import cache_folder
from coreml_prune_bench.core.files import write_atomically

PACKAGE = __name__.partition(".")[0]

_CHANGE_NO_RESULT = frozenset(
    f"{PACKAGE}.{name}"
    for name in ("core.errors", "core.progress", "core.bar_columns", "models.errors", "models.quiet")
)
"""What a user is told, and when. Every module imports these; what is measured depends on none."""


def key_of(inputs: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of JSON-like inputs; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def code_version(*entries: str) -> str:
    """A hash of the code behind entry points: of `code_behind`."""
    return key_of(code_behind(*entries))


def code_behind(*entries: str) -> dict[str, str]:
    """The hash of each module that the entry points need, by its name, sorted; the entries' own among them.

    entries: "module", "module:function", or "module:Class.method", which leaves out what only the other methods of the
    class import. Modules of this project may be named below its package ("models.training"). A module of others stands
    for itself and what it imports of this project.
    Comments, formatting and docstrings do not count. Nothing is imported.
    """
    hashes = {module: _hash_of(module) for module in sorted(_modules_behind(frozenset(entries)))}
    _remember()
    return hashes


def package_versions(*packages: str) -> dict[str, str]:
    """Installed versions by package name."""
    return {package: version(package) for package in packages}


@cache
def _modules_behind(entries: frozenset[str]) -> frozenset[str]:
    found: set[str] = set()
    waiting: list[str] = []
    for entry in entries:
        name, _, function = entry.partition(":")
        module = _full_name(name)
        class_, _, method = function.rpartition(".")
        if class_:
            found.add(module)
            waiting += _imported(_without_other_methods(_tree_of(module), class_, method))
        else:
            waiting.append(module)
    while waiting:
        module = waiting.pop()
        if module in found or module in _CHANGE_NO_RESULT:
            continue
        found.add(module)
        if module in _graph().modules:
            waiting += _graph().find_modules_directly_imported_by(module)
        else:
            waiting += _imported(_tree_of(module))
        if _imports_its_folder(module):
            waiting += _graph().find_children(module)
    return frozenset(found)


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)


def _full_name(module: str) -> str:
    inside = f"{PACKAGE}.{module}"
    return inside if inside in _graph().modules else module


def _imported(tree: ast.AST) -> Iterator[str]:
    """The modules of the project that a piece of code imports, those for type checkers alone left out."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inside if name in _graph().modules]
            names = modules if len(modules) == len(inside) else [str(node.module), *modules]
        yield from (name for name in names if name in _graph().modules)


def _without_other_methods(tree: ast.Module, class_: str, method: str) -> ast.Module:
    (definition,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_)
    definition.body = [node for node in definition.body if not isinstance(node, ast.FunctionDef) or node.name == method]
    return tree


def _imports_its_folder(module: str) -> bool:
    """Whether a package imports whatever lies in it, which no import statement shows."""
    return module in _graph().modules and "iter_modules(__path__)" in _text_of(module)


@cache
def _hash_of(module: str) -> str:
    """12 hex digits of the SHA-256 of a module's code."""
    text = _text_of(module)
    known = _known().hashes
    name = hashlib.sha256(text.encode()).hexdigest()
    if name not in known:
        known[name] = _hash_of_code(ast.parse(text))
    return known[name]


def _hash_of_code(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[ast.get_docstring(node) is not None :]
    # As Python 3.11 writes it: later versions leave out what is empty, and know one field more.
    shown: dict[str, Any] = {"show_empty": True} if sys.version_info >= (3, 13) else {}
    text = ast.dump(tree, **shown).replace(", type_params=[]", "")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass
class _Known:
    """Hashes of code by that of its text: to parse a hundred modules takes a second. written: how many are kept."""

    file: Path
    hashes: dict[str, str]
    written: int


@cache
def _known() -> _Known:
    here = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]  # what is computed can change
    file = cache_folder() / "digests" / f"code-{here}.json"
    hashes: dict[str, str] = {}
    with suppress(OSError, ValueError):
        read = json.loads(file.read_bytes())
        if isinstance(read, dict):
            hashes = {name: value for name, value in read.items() if re.fullmatch("[0-9a-f]{12}", str(value))}
    return _Known(file, hashes, len(hashes))


def _remember() -> None:
    known = _known()
    if len(known.hashes) > known.written:
        known.written = len(known.hashes)
        with suppress(OSError):  # it is only ever a saving
            known.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(known.file, json.dumps(known.hashes))


def _tree_of(module: str) -> ast.Module:
    return ast.parse(_text_of(module))


@cache
def _text_of(module: str) -> str:
    return _file_of(module).read_text(encoding="utf-8")


def _file_of(module: str) -> Path:
    """Found without importing the module; its package, if any, is imported already or is ours."""
    if module == PACKAGE or module.startswith(f"{PACKAGE}."):
        place = Path(__file__).parents[1].joinpath(*module.split(".")[1:])
        return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    found = importlib.util.find_spec(module)
    origin = found.origin if found else None
    assert origin is not None, f"{module} is an entry point and has a file"
    return Path(origin)
