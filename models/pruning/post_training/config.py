"""The config of data-free post-training pruning."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from coreml_prune_bench.models.pruning.config import StructuredConfig, Takes


class PostTrainingConfig(StructuredConfig):
    """Data-free: zero the smallest weights of each layer, single ones, blocks or n of m, or all up to a `threshold`.

    A threshold promises no sparsity: a layer that ends less than half zero is stored dense, as Core ML Tools does.
    """

    title: ClassVar[str] = "Post-training pruning"
    takes: ClassVar[frozenset[Takes]] = frozenset()
    has_trials: ClassVar[bool] = False

    algorithm: Literal["post-training"] = "post-training"
    threshold: float | None = Field(None, gt=0, description="weights of this magnitude or less become zero")

    def _mode(self) -> str:
        return f"Magnitude threshold {self.threshold:g}" if self.threshold is not None else super()._mode()

    def _amounts(self) -> dict[str, Any]:
        return {**super()._amounts(), "threshold": self.threshold}

    @model_validator(mode="after")
    def _a_threshold_stands_alone(self) -> Self:
        if self.threshold is not None and self.block_size:
            raise ValueError("block_size: a threshold is for single weights; give 'sparsity' with it")
        if self.threshold is not None and self._own_sparsities():
            raise ValueError("layers: a threshold has no sparsity; only 0, which leaves a layer dense, is possible")
        return self
