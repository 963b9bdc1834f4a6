"""ONNX Runtime as this project uses it: on the CPU, and silent, since what it has to say is raised."""

from __future__ import annotations

import functools
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnxruntime  # type: ignore[import-untyped]
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnxruntime.capi import onnxruntime_pybind11_state  # type: ignore[import-untyped]

from coreml_prune_bench.models.processors import cores

_FATAL_ONLY = 4  # errors are raised besides

ONNX_RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    *(e for e in vars(onnxruntime_pybind11_state).values() if isinstance(e, type) and issubclass(e, Exception)),
    EncodeError,
    RuntimeError,
    ValueError,
    MemoryError,
)
"""What ONNX Runtime raises for a model that it cannot load or run: its errors have no common class."""


def start(model: Path | bytes, *, threads: int | None, optimize: bool = True) -> Any:
    """A session for the ONNX model, whose weights stand in it or beside it, mapped. None: a thread a core."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.inter_op_num_threads = 1
    # Left to itself, ONNX Runtime ties a thread to each core of the machine, also to those that this process may not
    # use and those that another program has.
    options.intra_op_num_threads = threads or cores()
    # Idle threads that spin take the cores from those that decode images, and from other programs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _share_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


@functools.cache
def _share_memory() -> None:
    """One pool of memory for every session of this process, as they take turns: each would keep its largest batch."""
    arena, kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    with suppress(*ONNX_RUNTIME_ERRORS):  # whoever else uses ONNX Runtime here has made one
        memory = onnxruntime.OrtMemoryInfo("Cpu", arena, 0, kind)
        onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({}))
