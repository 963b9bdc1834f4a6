"""The typed configs of networks: which layers a scope chooses, and how a network is trained.

Data alone: nothing here imports torch or coremltools, so suites are read and cells are found up to date in an instant.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scope(Config):
    """A choice among a network's convolutions and linear layers.

    "75 %" says little without it: MobileNetV2 with a dense classifier and dense depthwise convolutions is 46 % sparse
    as a whole. Every table therefore prints the scope beside the sparsity.
    """

    depthwise: bool = Field(True, description="prune depthwise convolutions too")
    exclude: tuple[str, ...] = Field((), description="layer names that stay dense; * and ? are wildcards")
    min_elements: int = Field(0, ge=0, description="layers with this many weights or fewer stay dense")

    def describe(self) -> str:
        """The scope in a few words, for a table."""
        size = f" over {self.min_elements:,} weights" if self.min_elements else ""
        dense = [*([] if self.depthwise else ["depthwise"]), *self.exclude]
        return f"conv + linear{size}" + (f" except {', '.join(dense)}" if dense else "")


class TrainingConfig(Config):
    """Stochastic gradient descent with Nesterov momentum along a schedule of the learning rate.

    one-cycle: up from a 25th of `learning_rate` within 30 % of the steps, then down to nearly nothing, the momentum
    running against it (Smith 2018); for short trainings. cosine: down to zero along half a cosine (Loshchilov and
    Hutter 2017), for long ones from pre-trained weights. constant: for comparisons. The latter two may begin with a
    linear warm-up (Goyal et al. 2017).
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(64, ge=2, description="of all processes together")
    learning_rate: float = Field(0.1, gt=0, description="the highest rate of the schedule")
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    warmup_share: float = Field(0.0, ge=0, lt=1, description="share of the steps of a linear warm-up; not of one-cycle")
    momentum: float = Field(0.9, ge=0, lt=1, description="of one-cycle: the middle of 0.1 that it runs through")
    weight_decay: float = Field(1e-4, ge=0)
    decay_all: bool = Field(True, description="decay BatchNorm's parameters and biases too, not only weights")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    adaptive_clipping: float | None = Field(
        None, gt=0, description="gradients longer than this share of their filter are shortened to it"
    )
    mixed_precision: bool = Field(
        True, description="on CUDA, convolutions and linear layers in bfloat16, or float16 where the GPU has none"
    )
    batchnorm_samples: int = Field(
        0, ge=0, description="training images on which BatchNorm statistics are measured again at the end; 0: not"
    )

    @model_validator(mode="after")
    def _one_cycle_is_whole(self) -> Self:
        if self.schedule == "one-cycle" and self.warmup_share:
            raise ValueError("warmup_share: one-cycle has a warm-up of its own; leave it out or take another schedule")
        if self.schedule == "one-cycle" and self.momentum and not 0.05 <= self.momentum < 0.95:
            raise ValueError("momentum: one-cycle swings by 0.05 around it; expected 0, or 0.05 to less than 0.95")
        return self


class Distillation(Config):
    """Learning from the dense network's outputs as well as from labels (Hinton et al. 2015).

    The loss is (1 - weight) x cross-entropy + weight x temperature^2 x the divergence of both softened outputs.
    """

    temperature: float = Field(2.0, gt=0, description="what outputs are divided by before the softmax")
    weight: float = Field(0.5, gt=0, le=1)
