"""coremltools' class for a model specification, and nothing else of coremltools: importing it imports torch, seconds.

The modules that protobuf generated, coremltools/proto/*_pb2.py, need nothing but each other and protobuf. They are
imported from there under another package's name. The classes are the same ones: protobuf makes one for a message type,
whoever asks first, so coremltools can be imported before or after.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_ALIAS = f"{__package__}.coremltools_proto"


def new_specification() -> Any:
    """An empty `CoreML.Specification.Model`."""
    if _ALIAS not in sys.modules:
        found = importlib.util.find_spec("coremltools")  # finds it without running it
        assert found is not None  # it is a dependency of this project
        alias = ModuleType(_ALIAS)
        alias.__path__ = [str(Path(folder) / "proto") for folder in found.submodule_search_locations or ()]
        sys.modules[_ALIAS] = alias
    return importlib.import_module(f"{_ALIAS}.Model_pb2").Model()
