"""Accuracy, size and latency of pruned Core ML models, measured on the final package.

What `__all__` lists is imported when it is first asked for: importing this package loads neither torch nor coremltools.
docs/api.md has an example of each.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from coreml_prune_bench.core import telemetry, waiting
from coreml_prune_bench.models.quiet import quiet_coremltools

if TYPE_CHECKING:
    from coreml_prune_bench.accuracy.package import evaluate_package as evaluate
    from coreml_prune_bench.advice.advise import advise
    from coreml_prune_bench.aimodel.programs import read_package as inspect
    from coreml_prune_bench.bench.suite import load_suite
    from coreml_prune_bench.bench.suite_choice import run_suite as run
    from coreml_prune_bench.core.errors import BenchError
    from coreml_prune_bench.gating.folder import gate_folder as gate
    from coreml_prune_bench.models.networks import registered_networks as networks
    from coreml_prune_bench.models.pruning.algorithm import algorithms
    from coreml_prune_bench.report.results import Results, load_records
    from coreml_prune_bench.runtimes import portable

__all__ = [
    "BenchError",
    "Results",
    "advise",
    "algorithms",
    "evaluate",
    "gate",
    "inspect",
    "load_records",
    "load_suite",
    "networks",
    "portable",
    "run",
]

_PLACES = {
    "BenchError": "core.errors:BenchError",
    "Results": "report.results:Results",
    "advise": "advice.advise:advise",
    "algorithms": "models.pruning.algorithm:algorithms",
    "evaluate": "accuracy.package:evaluate_package",
    "gate": "gating.folder:gate_folder",
    "inspect": "aimodel.programs:read_package",
    "load_records": "report.results:load_records",
    "load_suite": "bench.suite:load_suite",
    "networks": "models.networks:registered_networks",
    "portable": "runtimes.portable:",
    "run": "bench.suite_choice:run_suite",
}

# Here, so that no module of the project can import ONNX Runtime before, whether a command, the API or `portable` is
# used, or coremltools: off macOS it warns eight times. Or torch, which brings OpenMP.
telemetry.turn_off()
waiting.wait_briefly()
quiet_coremltools()


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place, _, attribute = _PLACES[name].partition(":")
    module = import_module(f"{__name__}.{place}")
    return getattr(module, attribute) if attribute else module


def __dir__() -> list[str]:
    return __all__
