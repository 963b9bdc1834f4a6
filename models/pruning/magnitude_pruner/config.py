"""The config of training-time pruning."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from coreml_prune_bench.models.pattern import Pattern
from coreml_prune_bench.models.pruning.config import StructuredConfig, TrainedConfig


class MagnitudePrunerConfig(TrainedConfig, StructuredConfig):
    """Raise the sparsity to its target along a polynomial schedule while fine-tuning; then keep the mask."""

    title: ClassVar[str] = "MagnitudePruner"

    algorithm: Literal["magnitude-pruner"] = "magnitude-pruner"
    granularity: Literal["per_scalar", "per_kernel", "per_channel"] = Field(
        "per_scalar", description="what is zero as a whole: single weights, the kernel of two channels, output channels"
    )
    power: int = Field(3, ge=1, description="of the polynomial: the higher, the more is pruned early")
    updates: int = Field(50, ge=1, description="how often the mask is renewed on the way")

    @property
    def pattern(self) -> Pattern | None:
        if self.granularity == "per_scalar":
            return super().pattern
        return Pattern(along="channel" if self.granularity == "per_channel" else "kernel")

    def _mode(self) -> str:
        if self.granularity == "per_scalar":
            return super()._mode()
        return f"Per-{self.granularity.removeprefix('per_').capitalize()} Sparsity{self._percent()}"

    @model_validator(mode="after")
    def _core_ml_tools_can(self) -> Self:
        if self.granularity != "per_scalar" and (self.block_size or self.n_m_ratio or self.coremltools is not None):
            raise ValueError("granularity: block_size, n_m_ratio and coremltools_yaml say it themselves; leave it out")
        if self.block_size and self.dim == 1:
            raise ValueError("dim: MagnitudePruner's blocks are of output channels; leave it out")
        if self.n_m_ratio:
            n, m = self.n_m_ratio
            if self.initial_sparsity:
                raise ValueError("initial_sparsity: n:m sparsity starts from 0; leave it out")
            if int(n / m * m) != n:  # how Core ML Tools finds n again
                raise ValueError(f"n_m_ratio: Core ML Tools rounds {n}:{m} down to {n - 1}:{m}; take another m")
        return self
