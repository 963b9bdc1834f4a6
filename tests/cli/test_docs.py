"""The pages say what is there: links, commands, options, paths and names in them are held to the code."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from coreml_prune_bench.cli.app import COMMANDS, _imported

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(page for room in ("docs", "examples", "results") for page in (ROOT / room).glob("**/*.md")),
]
CURRENT = [page for page in PAGES if page.name not in ("CHANGELOG.md", "upgrading.md")]  # these name what was

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
FOLDERS = ("harness", "models", "src", "tests", "docs", "tools")
OTHERS_OPTIONS = {"--conformance-update", "--coreml-gate-update"}  # pytest's


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", CURRENT, ids=name_of)


def prose(page: Path) -> str:
    """Without blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(page: Path) -> list[str]:
    return [code.replace("\\|", "|") for code in re.findall(r"`([^`]+)`", prose(page))]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        place, _, anchor = link.partition("#")
        if "://" in place:
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    assert list(broken_links(page)) == []


def test_every_page_is_in_the_index():
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "README.md").read_text(encoding="utf-8")))


@cache
def options_of(command: str) -> frozenset[str]:
    """Of a command, and of those below it: `baseline save`."""
    found, waiting = {"--help"}, [_imported(command)]
    while waiting:
        one = waiting.pop()
        waiting += getattr(one, "commands", {}).values()
        found |= {name for option in one.params for name in option.opts}
    return frozenset(found)


def fenced(page: Path) -> Iterator[str]:
    """Every call of the command line in a page's blocks of code, without the program's name."""
    for _, code in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in code.replace("\\\n", " ").splitlines():
            if call := re.match(r"(?:\$ )?coreml-prune-bench (.*)", line.strip()):
                yield call[1].partition("  #")[0]


def called(page: Path) -> Iterator[str]:
    """Those, and every one in its prose."""
    yield from fenced(page)
    for code in inline_code(page):
        given = re.sub(r"^.*coreml-prune-bench ", "", code)
        if given != code or (given.split() or [""])[0] in COMMANDS:
            yield given


@each_page
def test_commands_and_their_options_are_there(page):
    for call in called(page):
        command = call.split()[0]
        if command in ("COMMAND", "--version"):
            continue
        assert command in COMMANDS, call
        unknown = set(re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", call)) - options_of(command)
        assert not unknown, call


@each_page
def test_calls_are_understood(page, monkeypatch, tmp_path):
    """Values too: click ends with an error for what an option does not take. Addresses are in memory here."""
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path))
    for call in fenced(page):
        command, *arguments = shlex.split(call.replace("s3://", "memory://"))
        _imported(command).make_context(command, arguments)


@each_page
def test_options_without_a_command_are_there_for_one(page):
    known = frozenset().union(*map(options_of, COMMANDS)) | OTHERS_OPTIONS | {"--version"}
    named = {match[0] for code in inline_code(page) if (match := re.match(r"--[a-z][a-z0-9-]*", code))}
    assert named <= known


WRITTEN_BY_READERS = ("models/networks/shufflenet_v2.py", "models/pruning/random_zeros/", "harness/data/arrays.py")


@each_page
def test_paths_are_there(page):
    for path in (code.split()[0] for code in inline_code(page)):
        if path.split("/")[0] in FOLDERS and re.fullmatch(r"[\w./-]+/[\w.-]*", path) and path not in WRITTEN_BY_READERS:
            assert (ROOT / path).exists(), path


def test_the_map_has_every_room_and_names_what_is_in_its_files():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (ROOT / "harness").glob("*/__init__.py")} - {"models"}
    assert {room for room in rooms if f"`harness/{room}/`" not in text} == set()
    named = re.findall(r"`(\w+)` in `([\w/.]+\.py)`", text)
    assert len(named) > 3
    for name, file in named:
        assert re.search(rf"^(def |class )?{name}\b", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), name


PYTHON = [
    pytest.param(code, id=f"{name_of(page)}-{number}")
    for page in CURRENT
    for number, (language, code) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
    if language == "python"
]


@pytest.mark.parametrize("code", PYTHON)
def test_python_in_the_pages_imports_what_is_there(code):
    tree = ast.parse(code)
    ours = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("coreml_prune_bench"):
            if "random_zeros" in str(node.module):  # what docs/extending.md adds
                continue
            for alias in node.names:
                assert hasattr(import_module(str(node.module)), alias.name), alias.name
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours & {"bench"}:
            assert hasattr(import_module("coreml_prune_bench"), node.attr), node.attr
