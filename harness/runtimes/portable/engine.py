"""ONNX Runtime as this project uses it: on the CPU, and silent, since what it has to say is raised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime  # type: ignore[import-untyped]
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnxruntime.capi import onnxruntime_pybind11_state  # type: ignore[import-untyped]

from coreml_prune_bench.models.processors import cores

_FATAL_ONLY = 4  # errors are raised besides
_SPIN_US = "50"
_CAN_SPIN_BRIEFLY = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) >= (1, 26)

ONNX_RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    *(e for e in vars(onnxruntime_pybind11_state).values() if isinstance(e, type) and issubclass(e, Exception)),
    EncodeError,
    RuntimeError,
    ValueError,
    MemoryError,
)
"""What ONNX Runtime raises for a model that it cannot load or run: its errors have no common class."""


def start(model: Path | bytes, *, threads: int | None, most_bytes: int | None, optimize: bool = True) -> Any:
    """A session for the ONNX model, whose weights stand in it or beside it, mapped. None: a thread a core.

    most_bytes: of the pool of memory that it takes its values from; ONNX Runtime raises where they need more. None: no
    pool, for what is run once and small.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.inter_op_num_threads = 1
    # Left to itself, ONNX Runtime ties a thread to each core of the machine, also to those that this process may not
    # use and those that another program has.
    options.intra_op_num_threads = threads or cores()
    # Threads that spin take cores from those that decode images, and from other programs; threads that sleep take as
    # long to wake as a small node to compute. So they spin about as long as that, where ONNX Runtime can be told.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(_CAN_SPIN_BRIEFLY)))
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    # Left to itself, ONNX Runtime computes between quantize and dequantize in integers, of which sums of products
    # saturate where the processor has no better, and quantizes what the program does not: neither is what it says.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if most_bytes is None:
        options.enable_cpu_mem_arena = False
    elif _POOL.has(most_bytes):
        options.add_session_config_entry("session.use_env_allocators", "1")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def renew_pool(most_bytes: int) -> bool:
    """Let sessions that are started from here on share a new pool: the one before is full, or of small pieces.

    False where ONNX Runtime (before 1.24) keeps the one that it has.
    """
    return _POOL.renew(most_bytes)


def leave_pool() -> None:
    """Let sessions that are started from here on share a new pool, once one has been full.

    ONNX Runtime takes what is left of a pool as an unsigned number: where a session's weights are put into a full one,
    it is beyond its limit, and from then on there is none.
    """
    _POOL.leave()


def is_full(error: BaseException) -> bool:
    """Whether ONNX Runtime raised this because the pool of memory is used up."""
    return "BFCArena" in str(error)


class _Pool:
    """The pool of memory that sessions of this process share, as they take turns: each would keep its largest batch.

    ONNX Runtime has one at a time for the whole process; a session keeps the one that it was started with.
    """

    def __init__(self) -> None:
        self._most_bytes = 0

    def has(self, most_bytes: int) -> bool:
        """Whether the pool may hold so many bytes, now or after it was renewed."""
        return most_bytes <= self._most_bytes or self.renew(most_bytes)

    def leave(self) -> None:
        self._most_bytes = 0

    def renew(self, most_bytes: int) -> bool:
        arena, kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
        memory = onnxruntime.OrtMemoryInfo("Cpu", arena, 0, kind)
        try:
            onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"max_mem": most_bytes}))
        except ONNX_RUNTIME_ERRORS:  # before 1.24 there is one for ever; who else uses ONNX Runtime here has made it
            return False
        self._most_bytes = most_bytes
        return True


_POOL = _Pool()
