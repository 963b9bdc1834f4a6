"""Keys: equal when the result would be, different when it might not be."""

from coreml_prune_bench.core.keys import code_version, key_of, package_versions


def test_the_order_of_keys_does_not_matter_and_values_do():
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
    assert key_of({"a": [1, 2]}) != key_of({"a": [2, 1]})


def test_comments_layout_and_docstrings_are_not_code(tmp_path):
    plain, documented, changed = (tmp_path / f"{name}.py" for name in ("plain", "documented", "changed"))
    plain.write_text("def f(x):\n    return x + 1\n")
    documented.write_text(
        '"""What it is for."""\n\n\ndef f(x):\n    """Add."""\n    return (x\n            + 1)  # why\n'
    )
    changed.write_text("def f(x):\n    return x + 2\n")
    assert code_version(plain) == code_version(documented)
    assert code_version(plain) != code_version(changed)


def test_a_folder_stands_for_its_files(tmp_path):
    (tmp_path / "a.py").write_text("a = 1\n")
    before = code_version(tmp_path)
    (tmp_path / "b.py").write_text("b = 1\n")
    assert code_version(tmp_path) != before


def test_versions_are_those_installed():
    assert package_versions("coremltools", "torch") == {"coremltools": "9.0", "torch": "2.7.0"}
