"""The config of blockwise reconstruction."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from coreml_prune_bench.models.pruning.config import CalibratedConfig, PruningConfig
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig


class ReconstructionConfig(CalibratedConfig):
    """Zeros, by default SparseGPT's; then each block is fitted to the dense network's, on a few unlabelled images."""

    title: ClassVar[str] = "Blockwise reconstruction"
    has_trials: ClassVar[bool] = True
    prunes_groups: ClassVar[bool] = False

    algorithm: Literal["blockwise-reconstruction"] = "blockwise-reconstruction"
    zeros: Literal["sparse-gpt", "magnitude"] = Field("sparse-gpt", description="what chooses the weights that go")
    calibration_samples: int = Field(300, ge=4, description="images, those held back among them")
    held_back_samples: int = Field(50, ge=1, description="of them, not fitted to: they choose a block's rate")
    views: int = Field(4, ge=1, description="of each image fitted to: as in evaluation, the others augmented")
    steps: int = Field(400, ge=1, description="of Adam, for each block and rate")
    rounds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.7, 0.87),
        description="shares of the sparsity that come before it, each with a fit of half as many steps, so that what "
        "goes next is chosen once others make up for what went. A Core ML Tools config has the last round alone",
    )
    batch_size: int = Field(24, ge=1, description="images of a step at most; fewer where a block's input is large")
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.03,),
        min_length=1,
        description="each block is fitted with all, and keeps what errs least on the images held back, its own weights "
        "if that is none; of the first step, in units of a tensor's root mean square and the error's root",
    )
    mixed_precision: bool = Field(
        True,
        description="fit in bfloat16 where that is faster: on CPUs with AMX, networks without grouped convolutions, "
        "such as ResNet50",
    )
    hessian_dampening: float | None = Field(
        None, gt=0, description="SparseGPT's; 0.1 if absent, ten times its default, of synthetic images its default"
    )
    class_rows: float = Field(
        0.3,
        ge=0,
        description="SparseGPT's; and in the fit of the layer that gives the classes, how much the error on its own "
        "rows counts beside that on images",
    )
    activations: Literal["memory", "disk"] = Field(
        "memory", description="where those of a block are kept, in Float16; disk: in the folder for temporary files"
    )

    def in_rounds(self) -> tuple[Self, ...]:
        """The config of each round, this one last; alone where a Core ML Tools config says how sparse layers are."""
        return (self,) if self.coremltools is not None else (*map(self._sooner, self.rounds), self)

    def _sooner(self, share: float) -> Self:
        less = {
            "sparsity": None if self.sparsity is None else share * self.sparsity,
            "layers": tuple((name, share * sparsity) for name, sparsity in self.layers),
            "steps": max(1, self.steps // 2),
        }
        return self.model_copy(update=less)

    def start(self, views: int = 1) -> SparseGPTConfig | PostTrainingConfig:
        """What chooses the zeros. It does not see the images that are held back, unless there are too few of all.

        views: of each image, that it sees.
        """
        shared = {name: getattr(self, name) for name in PruningConfig.model_fields if name != "algorithm"}
        if self.zeros == "magnitude":
            return PostTrainingConfig(**shared)
        samples = self.calibration_samples - self.held_back_samples
        return SparseGPTConfig(
            **shared,
            calibration_images=self.calibration_images,
            calibration_samples=samples,
            views=views,
            hessian_dampening=self.hessian_dampening or (None if self.takes_synthetic else 0.1),
            class_rows=self.class_rows,
        )

    def _extras(self) -> list[str]:
        return [*super()._extras(), *(["zeros by magnitude"] if self.zeros == "magnitude" else [])]

    @model_validator(mode="after")
    def _some_are_fitted(self) -> Self:
        if self.held_back_samples > self.calibration_samples // 2:
            raise ValueError(
                f"held_back_samples ({self.held_back_samples}) leaves less than half of calibration_samples "
                f"({self.calibration_samples}): give {self.calibration_samples // 2} or less, such as a sixth"
            )
        if self.zeros == "magnitude" and self.coremltools is not None:
            raise ValueError("a Core ML Tools config is SparseGPT's: leave out 'zeros'")
        if list(self.rounds) != sorted(set(self.rounds)):
            raise ValueError(f"rounds: expected shares that rise, such as 0.7, 0.87, got {list(self.rounds)}")
        return self
