"""What predicts when packages are evaluated: the portable runtime, or Apple's. Imports none of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from coreml_prune_bench.accuracy.watched import watched_loader
from coreml_prune_bench.core.keys import code_version, package_versions
from coreml_prune_bench.models.processors import cores
from coreml_prune_bench.records.accuracy import Runtime
from coreml_prune_bench.runtimes.protocol import Load, RuntimeName

if TYPE_CHECKING:
    from coreml_prune_bench.latency.session import Machine

_CODE = ("accuracy.evaluate",)
_AUTHORED_BY = {"coreml": "coremltools", "coreai": "coreai-core"}
"""The package that calls Apple's runtime."""


@dataclass(frozen=True)
class Evaluation:
    """compute_units: of Apple's runtimes; the portable runtime has the CPU alone."""

    runtime: RuntimeName = "portable"
    compute_units: str = "cpu"

    @property
    def code(self) -> tuple[str, ...]:
        """The entry points of what predicts."""
        return _CODE if self.runtime == "portable" else (*_CODE, f"runtimes.{self.runtime}")

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What predictions depend on besides package and images; of Apple's on the chip and the system's build."""
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
            "packages": package_versions(_AUTHORED_BY[self.runtime], "numpy", "pillow"),
        }

    @cached_property
    def described(self) -> Runtime:
        """As records name it. Raises CoreMLMissingError where it is not on this operating system."""
        return self._machine.runtime(self.compute_units)

    @property
    def threads(self) -> int | None:
        """Those of a prediction; of Apple's runtimes they are not known."""
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
