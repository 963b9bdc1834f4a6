"""The stand-in beside the native module of coremltools' wheel for macOS, which can be read on any machine."""

import inspect
import re
import subprocess
import sys
import zipfile
from importlib.metadata import version

import pytest

from coreml_prune_bench.latency.self_test.native import METHODS
from coreml_prune_bench.testing.native import CLASSES

ARGUMENTS = {
    ("_MLModelProxy", "predict"): 2,
    ("_MLModelProxy", "batchPredict"): 1,
    ("_MLModelProxy", "compileModel"): 1,
    ("_MLModelProxy", "create_model_asset_from_path"): 1,
    ("_MLModelProxy", "create_model_asset_from_memory"): 2,
    ("_MLModelProxy", "get_compute_plan"): 2,
    ("_MLModelProxy", "get_model_structure"): 1,
    ("_MLModelProxy", "newState"): 0,
    ("_State", "read_state"): 1,
    ("_State", "write_state"): 2,
}
"""As coremltools calls them, `self` left out."""


@pytest.fixture(scope="module")
def strings(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What is printable in the library. Skips without a network, or without pip."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--only-binary=:all:", "--platform", "macosx_11_0_arm64", "--python-version", "3.11")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            *options,
            "-d",
            folder,
            f"coremltools=={version('coremltools')}",
        ],
        capture_output=True,
        text=True,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        pytest.skip(f"the wheel cannot be had here: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        (name,) = (one for one in wheel.namelist() if re.fullmatch(r".*libcoremlpython.*\.so", one))
        content = wheel.read(name)
    return {found.decode() for found in re.findall(rb"[\x20-\x7e]{4,}", content)}


@pytest.mark.slow  # 10 MB are downloaded
def test_every_class_and_method_is_in_the_library(strings: set[str]) -> None:
    named = {*CLASSES, *(method for methods in METHODS.values() for method in methods)}
    assert named - strings == set()
    # And no method of ours besides: what Python itself calls starts with an underscore.
    own = {"world", "threads", "precision", "cores", "arrays"}
    ours = {name for kind in CLASSES.values() for name in dir(kind) if not name.startswith("_")} - own
    assert ours - strings == set()
    proxies = {text for text in strings if re.fullmatch(r"_ML\w+Proxy", text)}
    assert proxies - set(CLASSES) == set()


@pytest.mark.parametrize(("owner", "method"), ARGUMENTS)
def test_methods_take_as_many_arguments(owner: str, method: str) -> None:
    """The stand-in's take what coremltools gives, and no less."""
    function = inspect.unwrap(getattr(CLASSES[owner], method))
    parameters = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    assert len(parameters) == ARGUMENTS[owner, method]
    assert set(METHODS[owner]) >= {method}
