"""The config of SparseGPT."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from coreml_prune_bench.models.pattern import Pattern
from coreml_prune_bench.models.pruning.config import CalibratedConfig, RatioConfig


class SparseGPTConfig(CalibratedConfig, RatioConfig):
    """Layer by layer, what is pruned is made up for by the weights that stay, fitted on a few unlabelled images."""

    title: ClassVar[str] = "SparseGPT"
    has_trials: ClassVar[bool] = False
    prunes_groups: ClassVar[bool] = False

    algorithm: Literal["sparse-gpt"] = "sparse-gpt"
    weight_dtype: Literal["float32", "uint8"] = Field(
        "float32", description="uint8: pruned and quantized to 8 bits in one, rounding made up for as well"
    )
    calibration_samples: int = Field(128, ge=1, description="images the layers are fitted to")
    views: int = Field(1, ge=1, description="of each of them: as in evaluation, the others augmented")
    hessian_dampening: float | None = Field(
        None,
        gt=0,
        description="what is added to the Hessian's diagonal, as a share of its mean; 0.01 if absent, of synthetic "
        "images, which say less of others, 0.4",
    )
    class_rows: float = Field(
        0,
        ge=0,
        description="where the layer that gives the classes is pruned: how much its own rows, one for each class, "
        "count as inputs beside the images, which show few of the classes",
    )
    batchnorm_samples: int = Field(
        0,
        ge=0,
        description="images on which is measured what pruning did to BatchNorm's statistics, which follow it; 0: not",
    )

    @property
    def pattern(self) -> Pattern | None:
        return Pattern(along="row", size=self.n_m_ratio[1], zeros=self.n_m_ratio[0]) if self.n_m_ratio else None

    @property
    def dampening(self) -> float:
        if self.hessian_dampening is not None:
            return self.hessian_dampening
        return 0.4 if self.takes_synthetic else 0.01

    @property
    def joint_bits(self) -> int | None:
        return 8 if self.weight_dtype == "uint8" else super().joint_bits

    def _extras(self) -> list[str]:
        joint = ["jointly 8-bit"] if self.weight_dtype == "uint8" else []
        return [*joint, *super()._extras(), *(["BatchNorm re-estimated"] if self.batchnorm_samples else [])]

    @model_validator(mode="after")
    def _quantized_once(self) -> Self:
        if self.weight_dtype == "uint8" and (self.quantize_bits or self.palettize_bits):
            raise ValueError("weight_dtype = 'uint8' quantizes already: leave out quantize_bits and palettize_bits")
        if self.weight_dtype == "uint8" and self.coremltools is not None:
            raise ValueError("a Core ML Tools config says itself what weight_dtype is: leave out 'weight_dtype'")
        return self
