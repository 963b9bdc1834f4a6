"""constraints.txt is what `make setup` installs: whole, and within the ranges of pyproject.toml."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_lock_has_every_requirement_within_its_range():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pin = Requirement(line)  # a line with an index or a path is none
        assert re.fullmatch(r"==[\w.]+", str(pin.specifier)), line
        pins[canonicalize_name(pin.name)] = Version(str(pin.specifier).removeprefix("=="))
    wanted = [Requirement(line) for line in PROJECT["dependencies"]]
    wanted += [Requirement(line) for extra in PROJECT["optional-dependencies"].values() for line in extra]
    for requirement in wanted:
        if requirement.name != PROJECT["name"]:
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement
