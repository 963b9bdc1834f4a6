"""What worker and client must have in common, so that equal keys mean equal results."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from coreml_prune_bench.core.keys import code_version

Versions = dict[str, str]

_PACKAGES = ("coremltools", "torch", "torchvision", "onnx", "onnxruntime", "numpy", "pillow")
"""Those that keys hold, and that convert, train and predict."""

_CODE = ("bench.run", "cluster.tasks", "cluster.latency")
"""The entry points of what a worker does."""


def versions() -> Versions:
    """This machine's: Python's minor version, the packages that results depend on, and the hash of our code."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **{package: _installed(package) for package in _PACKAGES},
        "code": code_version(*_CODE)[:12],
    }


def differences(theirs: Mapping[str, str], ours: Mapping[str, str], here: str = "here") -> str:
    """What is another there, with both named; empty where all is the same."""
    names = (name for name in ours if theirs.get(name) != ours[name])
    return "; ".join(f"{name} is {theirs.get(name, 'not known')} there and {ours[name]} {here}" for name in names)


def _installed(package: str) -> str:
    """Without a local suffix, such as +cu128: a Mac and a machine with CUDA can work together."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "not installed"
