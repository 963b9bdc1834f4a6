"""The config of training-time pruning with coreai-opt."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from coreml_prune_bench.models.config import Distillation, TrainingConfig
from coreml_prune_bench.models.pruning.config import RatioConfig, Takes


class CoreAIMagnitudePrunerConfig(RatioConfig):
    """As MagnitudePruner of Core ML Tools: raise the sparsity along a polynomial while fine-tuning; then keep the mask.

    The mask is renewed at every step, from all weights: what was zero can come back.
    """

    title: ClassVar[str] = "Core AI MagnitudePruner"
    takes: ClassVar[frozenset[Takes]] = frozenset({"images", "labels", "session"})
    has_trials: ClassVar[bool] = True

    algorithm: Literal["coreai-magnitude-pruner"] = "coreai-magnitude-pruner"
    training: TrainingConfig
    distillation: Distillation | None = None
    initial_sparsity: float = Field(0.0, ge=0, lt=1)
    pruning_start: float = Field(0.0, ge=0, lt=1, description="share of the steps before the sparsity begins to rise")
    pruning_share: float = Field(0.5, gt=0, le=1, description="share of the steps after which the target is reached")
    power: float = Field(3, gt=0, description="of the polynomial: the higher, the more is pruned early")

    def _extras(self) -> list[str]:
        return [*super()._extras(), *(["distilled"] if self.distillation else [])]

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.pruning_start >= self.pruning_share:
            raise ValueError(
                f"pruning_start ({self.pruning_start:g}) is not below pruning_share ({self.pruning_share:g})"
            )
        return self

    @model_validator(mode="after")
    def _has_no_core_ml_tools_config(self) -> Self:
        if self.coremltools is not None:
            raise ValueError("coremltools_yaml: it is not one of Core ML Tools' algorithms; leave it out")
        return self
