"""TOML and YAML that say much in little, or nothing that can be read: one line, and soon."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreml_prune_bench.core.written_files import MOST_BYTES, read_toml, read_yaml

Read = Callable[[Path], Any]

TEN = ",".join("x" * 10)
LEVELS = "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 8))
MERGED = "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 8))

REFUSED: dict[str, tuple[Read, str, str]] = {
    "seven levels of aliases": (read_yaml, f"a0: &a0 [{TEN}]\n{LEVELS}", "its aliases make 234,567,923 letters of 380"),
    "seven levels of merged keys": (read_yaml, f"a0: &a0 {{x: 1}}\n{MERGED}", "its aliases make"),
    "a long text, often": (read_yaml, f"- &a {'x' * 9000}\n" + "- *a\n" * 900, "its aliases make 8,1"),
    "a list in itself": (read_yaml, "a: &a [*a]", "it holds itself"),
    "lists in lists": (read_yaml, "[" * 1000, "nested too deep"),
    "blocks in blocks": (read_yaml, "- " * 5000, "nested too deep"),
    "a number of 5,000 digits": (read_yaml, "a: " + "9" * 5000, "digits"),
    "a date that is none": (read_yaml, "a: 2001-13-45", "month"),
    "a number that is too large": (read_yaml, "a: 1" + ":59" * 300 + ".5", "too large"),
    "a flag that is none": (read_yaml, "!!bool abc", "abc"),
    "a time that is none": (read_yaml, "!!timestamp abc", "NoneType"),
    "an object": (read_yaml, "!!python/object:os.system {}", "could not determine a constructor"),
    "bytes": (read_yaml, "\udcff", "codec"),
    "too large a YAML file": (read_yaml, "a" * (MOST_BYTES["YAML"] + 1), "more than 256 KiB"),
    "TOML lists in lists": (read_toml, "a = " + "[" * 50_000, "nested too deep"),
    "TOML tables in tables": (read_toml, "a = " + "{a = " * 50_000, "nested too deep"),
    "a key of many parts": (read_toml, ".".join("a" * 20_000) + " = 1", "a key of 64 parts and more"),
    "a quoted key of many parts": (read_toml, "['a'" + ' . "b"' * 70 + "]", "a key of 64 parts and more"),
    "a TOML number of 5,000 digits": (read_toml, "a = " + "9" * 5000, "digits"),
    "too large a TOML file": (read_toml, "#" * (MOST_BYTES["TOML"] + 1), "more than 1,024 KiB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_told(case: str, tmp_path: Path) -> None:
    read, text, message = REFUSED[case]
    (tmp_path / "file").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=message) as raised:
        read(tmp_path / "file")
    assert len(str(raised.value).splitlines()) == 1


def test_a_pipe_that_a_suite_names_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ValueError, match="is no file"):
        read_yaml(tmp_path / "pipe.yaml")


def test_aliases_and_keys_as_people_write_them(tmp_path: Path) -> None:
    layers = "".join(f"  conv{i}: *half\n" for i in range(300))
    (tmp_path / "a.yaml").write_text(f"half: &half {{mode: linear, n_bits: 4}}\nall:\n  <<: {{a: 1}}\n{layers}")
    assert read_yaml(tmp_path / "a.yaml")["all"] == {
        "a": 1,
        **{f"conv{i}": {"mode": "linear", "n_bits": 4} for i in range(300)},
    }
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") is None
    floats = ", ".join(["0.1"] * 200)
    (tmp_path / "a.toml").write_text(f'a.b."c d" = [{floats}]\nb = "{"..." * 80} 1.2.3.4"')
    assert read_toml(tmp_path / "a.toml") == {"a": {"b": {"c d": [0.1] * 200}}, "b": "..." * 80 + " 1.2.3.4"}
