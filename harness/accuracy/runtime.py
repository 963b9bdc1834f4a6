"""What predicts when a cell is evaluated: the portable runtime, or Core ML on this Mac. Imports neither."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from coreml_prune_bench.accuracy.watched import watched_loader
from coreml_prune_bench.core.keys import code_version, package_versions
from coreml_prune_bench.models.processors import cores
from coreml_prune_bench.records.accuracy import Runtime
from coreml_prune_bench.runtimes.protocol import Load, MLPackageRuntime

if TYPE_CHECKING:
    from coreml_prune_bench.latency.session import Machine

_CODE = ("accuracy.evaluate",)


@dataclass(frozen=True)
class Evaluation:
    """compute_units: Core ML's; the portable runtime has the CPU alone."""

    runtime: MLPackageRuntime = "portable"
    compute_units: str = "cpu"

    @property
    def code(self) -> tuple[str, ...]:
        """The entry points of what predicts."""
        return _CODE if self.runtime == "portable" else (*_CODE, "runtimes.coreml")

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What predictions depend on besides package and images; Core ML's on the chip and the system's build."""
        if self.runtime == "portable":
            return {
                "runtime": "portable",
                "code": code_version(*self.code),
                "packages": package_versions("onnxruntime", "onnx", "numpy", "pillow"),
            }
        return {
            "runtime": self.described.model_dump(),
            "chip": self._machine.device.chip,
            "code": code_version(*self.code),
            "packages": package_versions("coremltools", "numpy", "pillow"),
        }

    @cached_property
    def described(self) -> Runtime:
        """As records name it. Raises CoreMLMissingError where it is not on this operating system."""
        return self._machine.runtime(self.compute_units)

    @property
    def threads(self) -> int | None:
        """Those of a prediction; Core ML's are not known."""
        return cores() if self.runtime == "portable" else None

    @property
    def load(self) -> Load:
        """Loads packages."""
        return watched_loader(self.runtime, compute_units=self.compute_units)

    @cached_property
    def _machine(self) -> "Machine":
        from coreml_prune_bench.latency.machines import this_machine

        return this_machine(self.runtime)[0]


PORTABLE = Evaluation()
