"""The config of training-time pruning with coreai-opt."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from coreml_prune_bench.models.pruning.config import TrainedConfig


class CoreAIMagnitudePrunerConfig(TrainedConfig):
    """As MagnitudePruner of Core ML Tools: raise the sparsity along a polynomial while fine-tuning; then keep the mask.

    The mask is renewed at every step, from all weights: what was zero can come back.
    """

    title: ClassVar[str] = "Core AI MagnitudePruner"

    algorithm: Literal["coreai-magnitude-pruner"] = "coreai-magnitude-pruner"
    power: float = Field(3, gt=0, description="of the polynomial: the higher, the more is pruned early")

    @model_validator(mode="after")
    def _has_no_core_ml_tools_config(self) -> Self:
        if self.coremltools is not None:
            raise ValueError("coremltools_yaml: it is not one of Core ML Tools' algorithms; leave it out")
        return self
