"""Keys: equal when the result would be, different when it might not be. Cells' keys: tests/bench/test_cell_keys.py."""

from importlib.metadata import version
from pathlib import Path

import pytest

from coreml_prune_bench.core import keys
from coreml_prune_bench.core.cache_folder import CACHE_VARIABLE
from coreml_prune_bench.core.keys import PACKAGE, code_behind, code_version, key_of, package_versions


def test_the_order_of_keys_does_not_matter_and_values_do():
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
    assert key_of({"a": [1, 2]}) != key_of({"a": [2, 1]})


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Writes modules of somebody else's, which can be found but are not imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**texts: str) -> None:
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)

    return write


def test_comments_layout_and_docstrings_are_not_code(modules):
    modules(
        plain_code="def f(x):\n    return x + 1\n",
        documented_code='"""What it is for."""\n\n\ndef f(x):\n    """Add."""\n    return (x\n        + 1)  # why\n',
        changed_code="def f(x):\n    return x + 2\n",
    )
    (plain,), (documented,), (changed,) = (
        code_behind(f"{name}_code").values() for name in ("plain", "documented", "changed")
    )
    assert plain == documented
    assert plain != changed


def test_a_module_of_others_brings_what_it_imports_of_the_project(modules):
    modules(
        outside="from typing import TYPE_CHECKING\n"
        f"if TYPE_CHECKING:\n    import {PACKAGE}.report.page\n"
        f"def f():\n    from {PACKAGE}.data import transform\n"
    )
    transform = {"data.transform", "data.scaling", "models.preprocessing", "models.imagenet"}
    assert set(code_behind("outside:f")) == {"outside", *(f"{PACKAGE}.{name}" for name in transform)}


def test_a_function_where_it_is_imported_counts_and_an_import_for_type_checkers_does_not():
    behind = code_behind("runtimes.protocol")
    assert f"{PACKAGE}.runtimes.coreml" in behind  # inside a function
    assert f"{PACKAGE}.records.predictions" not in behind


def test_a_method_leaves_out_what_other_methods_import():
    save = code_behind("bench.formats.mlpackage:_MLPackage.save_dense")
    assert f"{PACKAGE}.models.conversion" in save
    assert f"{PACKAGE}.models.pruning.coreml" not in save
    assert f"{PACKAGE}.models.pruning.coreml" in code_behind("bench.formats.mlpackage:_MLPackage.save_pruned")


def test_a_version_depends_on_every_module(modules):
    modules(first="x = 1\n", second="x = 2\n")
    assert code_version("first", "second") == code_version("second", "first")
    assert len({code_version("first"), code_version("second"), code_version("first", "second")}) == 3


def test_no_cache_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code_behind("data.transform")
    assert not list(tmp_path.iterdir())


def test_versions_are_those_installed():
    assert package_versions("coremltools", "numpy") == {name: version(name) for name in ("coremltools", "numpy")}


def test_hashes_of_code_are_remembered_by_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))

    def anew() -> dict[str, str]:
        keys._known.cache_clear()
        keys._hash_of.cache_clear()
        return code_behind("core.errors", "report.formats")

    first = anew()
    (file,) = (tmp_path / "digests").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(keys, "_hash_of_code", lambda tree: pytest.fail("parsed once more"))
        assert anew() == first
    file.write_text('{"half')
    assert anew() == first
    keys._known.cache_clear()  # which other tests do not share
