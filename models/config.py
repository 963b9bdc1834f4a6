"""The typed configs: which layers are pruned, how much and how, and how a network is trained.

Data alone: nothing here imports torch or coremltools, so suites are read and cells are found up to date in an instant.
"""

from abc import ABC
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scope(_Config):
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


class TrainingConfig(_Config):
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


class Distillation(_Config):
    """Learning from the dense network's outputs as well as from labels (Hinton et al. 2015).

    The loss is (1 - weight) x cross-entropy + weight x temperature^2 x the divergence of both softened outputs.
    """

    temperature: float = Field(2.0, gt=0, description="what outputs are divided by before the softmax")
    weight: float = Field(0.5, gt=0, le=1)


class PruningConfig(_Config, ABC):
    """How much is pruned where: a sparsity (and a scope), or Core ML Tools' own config; never both.

    title: the algorithm's name in tables. needs_data: it sees training images. has_trials: their order matters.
    """

    title: ClassVar[str]
    needs_data: ClassVar[bool]
    has_trials: ClassVar[bool]

    algorithm: str
    label: str | None = Field(None, description="the config's name in tables")
    models: tuple[str, ...] | None = Field(None, description="the networks of the suite it is for; all if absent")
    sparsity: float | None = Field(None, gt=0, lt=1, description="fraction of zeros in each pruned layer")
    scope: Scope | None = Field(None, description="the pruned layers; the network's default scope if absent")
    coremltools: dict[str, Any] | None = Field(None, description="a config of Core ML Tools, as read from its YAML")

    def is_for(self, network: str) -> bool:
        return self.models is None or network in self.models

    @property
    def name(self) -> str:
        """The config in words, such as "Unstructured Sparsity 50%"."""
        return self.label or self._default_name()

    def _default_name(self) -> str:
        return "Core ML Tools config" if self.sparsity is None else f"Unstructured Sparsity {100 * self.sparsity:g}%"

    def _amounts(self) -> dict[str, Any]:
        return {"sparsity": self.sparsity, "coremltools_yaml": self.coremltools}

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        amounts = self._amounts()
        given = [name for name, value in amounts.items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(amounts)}; given: {', '.join(given) or 'none'}")
        if self.coremltools is not None and self.scope is not None:
            raise ValueError("a Core ML Tools config says itself which layers are pruned: leave out 'scope'")
        return self


class PostTrainingConfig(PruningConfig):
    """Data-free: zero the smallest weights of each layer (`sparsity`), or all up to a magnitude (`threshold`).

    A threshold promises no sparsity: a layer that ends less than half zero is stored dense, as Core ML Tools does.
    """

    title: ClassVar[str] = "Post-training pruning"
    needs_data: ClassVar[bool] = False
    has_trials: ClassVar[bool] = False

    algorithm: Literal["post-training"] = "post-training"
    threshold: float | None = Field(None, gt=0, description="weights of this magnitude or less become zero")

    def _default_name(self) -> str:
        return f"Magnitude threshold {self.threshold:g}" if self.threshold is not None else super()._default_name()

    def _amounts(self) -> dict[str, Any]:
        return {**super()._amounts(), "threshold": self.threshold}


class SparseGPTConfig(PruningConfig):
    """Layer by layer, what is pruned is made up for by the weights that stay, fitted on a few unlabelled images."""

    title: ClassVar[str] = "SparseGPT"
    needs_data: ClassVar[bool] = True
    has_trials: ClassVar[bool] = False

    algorithm: Literal["sparse-gpt"] = "sparse-gpt"
    calibration_samples: int = Field(128, ge=1, description="training images the layers are fitted to")
    hessian_dampening: float = Field(0.01, gt=0)
    batchnorm_samples: int = Field(
        0, ge=0, description="training images on which BatchNorm statistics are measured again afterwards; 0: not"
    )

    def _default_name(self) -> str:
        return super()._default_name() + (", BatchNorm re-estimated" if self.batchnorm_samples else "")


class MagnitudePrunerConfig(PruningConfig):
    """Raise the sparsity to its target along a polynomial schedule while fine-tuning; then keep the mask."""

    title: ClassVar[str] = "MagnitudePruner"
    needs_data: ClassVar[bool] = True
    has_trials: ClassVar[bool] = True

    algorithm: Literal["magnitude-pruner"] = "magnitude-pruner"
    training: TrainingConfig
    distillation: Distillation | None = None
    initial_sparsity: float = Field(0.0, ge=0, lt=1)
    pruning_start: float = Field(0.0, ge=0, lt=1, description="share of the steps before the sparsity begins to rise")
    pruning_share: float = Field(0.5, gt=0, le=1, description="share of the steps after which the target is reached")
    power: int = Field(3, ge=1, description="of the polynomial: the higher, the more is pruned early")
    updates: int = Field(50, ge=1, description="how often the mask is renewed on the way")

    def _default_name(self) -> str:
        return super()._default_name() + (", distilled" if self.distillation else "")

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.pruning_start >= self.pruning_share:
            raise ValueError(
                f"pruning_start ({self.pruning_start:g}) is not below pruning_share ({self.pruning_share:g})"
            )
        return self


AnyPruningConfig = Annotated[
    PostTrainingConfig | SparseGPTConfig | MagnitudePrunerConfig, Field(discriminator="algorithm")
]

ALGORITHMS: dict[str, type[PruningConfig]] = {
    "post-training": PostTrainingConfig,
    "sparse-gpt": SparseGPTConfig,
    "magnitude-pruner": MagnitudePrunerConfig,
}
