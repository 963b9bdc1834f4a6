"""The typed configs: which layers are pruned, how much and how, and how a network is trained.

Data alone: nothing here imports torch or coremltools, so suites are read and cells are found up to date in an instant.
"""

from abc import ABC
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from coreml_prune_bench.models.pattern import Pattern


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
    """How much is pruned where: an amount (and a scope), or Core ML Tools' own config; never both.

    title: the algorithm's name in tables. needs_data: it sees training images. has_trials: their order matters.
    prunes_groups: it can prune convolutions with groups.
    """

    title: ClassVar[str]
    needs_data: ClassVar[bool]
    has_trials: ClassVar[bool]
    prunes_groups: ClassVar[bool] = True

    algorithm: str
    label: str | None = Field(None, description="the config's name in tables")
    models: tuple[str, ...] | None = Field(None, description="the networks of the suite it is for; all if absent")
    sparsity: float | None = Field(None, gt=0, lt=1, description="fraction of zeros in each pruned layer")
    layers: tuple[tuple[str, float], ...] = Field(
        (),
        description="sparsities of single layers in place of `sparsity`, by name (* and ? are wildcards) or type "
        "(Conv2d, Linear), the first match counts; 0: the layer stays dense. Without `sparsity` so do all others",
    )
    allocation: Literal["uniform", "sensitivity"] = Field(
        "uniform",
        description="sensitivity: a sparsity of its own for each layer, as large as stored as with `sparsity` for all, "
        "from what pruning it alone does to the network's outputs on a few training images",
    )
    scope: Scope | None = Field(None, description="the pruned layers; the network's default scope if absent")
    quantize_bits: Literal[4, 8] | None = Field(
        None, description="the pruned layers' remaining weights are then quantized, linearly, per output channel"
    )
    palettize_bits: Literal[1, 2, 3, 4, 6, 8] | None = Field(
        None, description="the pruned layers' remaining weights are then palettized, with a table for each layer"
    )
    coremltools: dict[str, Any] | None = Field(None, description="a config of Core ML Tools, as read from its YAML")

    def is_for(self, network: str) -> bool:
        return self.models is None or network in self.models

    @property
    def name(self) -> str:
        """The config in words, such as "Unstructured Sparsity 50%"."""
        amounts = [self._mode(), *self._allocation_words(), *self._own_sparsities()]
        return self.label or ", ".join([*amounts, *self._extras(), *self._storage_words()])

    @property
    def target_sparsity(self) -> float | None:
        """The fraction of zeros asked of every pruned layer alike; None where there is no such number."""
        alike = self.allocation == "uniform" and not any(sparsity for _, sparsity in self.layers)
        return self._amount() if alike else None

    @property
    def pattern(self) -> Pattern | None:
        """How the zeros have to stand; None for anywhere."""
        return None

    @property
    def joint_bits(self) -> int | None:
        """Bits of each remaining weight of a pruned layer; None for Float16."""
        return self.quantize_bits or self.palettize_bits

    @property
    def storage(self) -> str:
        """The form in which pruned layers are stored, in the words of `inspect`."""
        if self.joint_bits is None:
            return "sparse"
        return f"sparse + {'palettized' if self.palettize_bits else 'blockwise-quantized'}"

    def sparsity_of(self, layer: str, kind: str) -> float | None:
        """What is asked of the layer of that name and type ("Conv2d"): 0 to stay dense, None for a threshold."""
        key = self.key_of_layers(layer, kind)
        if key is not None:
            return dict(self.layers)[key]
        return 0.0 if self.prunes_named_only else self._amount()

    def key_of_layers(self, layer: str, kind: str) -> str | None:
        """The key of `layers` that decides over the layer of that name and type; None if none does."""
        return next((key for key, _ in self.layers if key == kind or fnmatchcase(layer, key)), None)

    @property
    def prunes_named_only(self) -> bool:
        """Whether `layers` alone says what is pruned."""
        return all(value is None for value in self._amounts().values())

    def _amount(self) -> float | None:
        return self.sparsity

    def _mode(self) -> str:
        if self.coremltools is not None:
            return "Core ML Tools config"
        return "Unstructured Sparsity" + self._percent()

    def _percent(self) -> str:
        return "" if self.sparsity is None else f" {100 * self.sparsity:g}%"

    def _allocation_words(self) -> list[str]:
        return ["allocated by sensitivity"] if self.allocation == "sensitivity" else []

    def _own_sparsities(self) -> list[str]:
        """Layers that stay dense are left to the scope's description."""
        return [f"{pattern} {100 * sparsity:g}%" for pattern, sparsity in self.layers if sparsity]

    def _extras(self) -> list[str]:
        return []

    def _storage_words(self) -> list[str]:
        if self.quantize_bits:
            return [f"then {self.quantize_bits}-bit quantized"]
        return [f"then {self.palettize_bits}-bit palettized"] if self.palettize_bits else []

    def _amounts(self) -> dict[str, Any]:
        return {"sparsity": self.sparsity, "coremltools_yaml": self.coremltools}

    @field_validator("layers", mode="before")
    @classmethod
    def _in_order(cls, value: Any) -> Any:
        """A TOML table becomes pairs: their order counts."""
        if not isinstance(value, dict):
            return value
        for pattern, sparsity in value.items():
            if isinstance(sparsity, bool) or not isinstance(sparsity, int | float) or not 0 <= sparsity < 1:
                raise ValueError(f"{pattern!r}: expected a sparsity from 0 to less than 1, got {sparsity!r}")
        return tuple(value.items())

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        amounts = self._amounts()
        given = [name for name, value in amounts.items() if value is not None]
        if len(given) != 1 and not (self.prunes_named_only and self._own_sparsities()):
            raise ValueError(f"give exactly one of {', '.join(amounts)}; given: {', '.join(given) or 'none'}")
        if self.coremltools is not None and self.scope is not None:
            raise ValueError("a Core ML Tools config says itself which layers are pruned: leave out 'scope'")
        if self.coremltools is not None and self.layers:
            raise ValueError("a Core ML Tools config says itself how much of which layer is pruned: leave out 'layers'")
        return self

    @model_validator(mode="after")
    def _can_be_allocated(self) -> Self:
        if self.allocation == "uniform":
            return self
        if not self.needs_data:
            raise ValueError("allocation: this algorithm sees no images; `sensitivity --sparsity` prints its 'layers'")
        if self.sparsity is None or self.pattern is not None:
            raise ValueError("allocation: layers can only differ in an unstructured sparsity; give 'sparsity' alone")
        if self.layers:
            raise ValueError("allocation: it decides over every layer in scope; leave out 'layers', use 'scope'")
        return self

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.quantize_bits and self.palettize_bits:
            raise ValueError("quantize_bits and palettize_bits: a weight is stored in one of the two forms; give one")
        return self


class _WithRatio(PruningConfig, ABC):
    """What the algorithms of Core ML Tools share that know n:m sparsity."""

    n_m_ratio: tuple[int, int] | None = Field(None, description="n and m: of every m neighbours, n are zero")

    def _amount(self) -> float | None:
        return self.n_m_ratio[0] / self.n_m_ratio[1] if self.n_m_ratio else self.sparsity

    def _mode(self) -> str:
        return f"{self.n_m_ratio[0]}:{self.n_m_ratio[1]} Sparsity" if self.n_m_ratio else super()._mode()

    def _amounts(self) -> dict[str, Any]:
        return {**super()._amounts(), "n_m_ratio": self.n_m_ratio}

    @model_validator(mode="after")
    def _is_a_ratio(self) -> Self:
        if self.n_m_ratio is not None:
            n, m = self.n_m_ratio
            if not 0 < n < m:
                raise ValueError(f"n_m_ratio: expected n zeros of every m weights, 0 < n < m, got [{n}, {m}]")
            if self._own_sparsities():
                raise ValueError(f"layers: all are {n}:{m} sparse; only 0, which leaves a layer dense, is possible")
        return self


class _Structured(_WithRatio, ABC):
    """Zeros in blocks of neighbours, or n of m, along a dimension of the weight."""

    block_size: int | None = Field(None, ge=2, description="so many neighbouring channels are zero together")
    dim: Literal[0, 1] | None = Field(
        None, description="dimension of n:m and of blocks: 0, output channels (blocks' default), 1, input ones (n:m's)"
    )

    @property
    def pattern(self) -> Pattern | None:
        if self.n_m_ratio:
            n, m = self.n_m_ratio
            return Pattern(along="output" if self.dim == 0 else "input", size=m, zeros=n)
        if self.block_size:
            return Pattern(along="input" if self.dim == 1 else "output", size=self.block_size)
        return None

    def _mode(self) -> str:
        if self.block_size is None:
            return super()._mode()
        channels = "input" if self.dim == 1 else "output"
        return f"Block Structured Sparsity{self._percent()}, {self.block_size} {channels} channels"

    def _extras(self) -> list[str]:
        return ["along output channels"] if self.n_m_ratio and self.dim == 0 else []

    @model_validator(mode="after")
    def _one_structure(self) -> Self:
        if self.block_size and (self.n_m_ratio or self.coremltools is not None):
            raise ValueError("block_size: n_m_ratio and coremltools_yaml have a structure of their own; leave it out")
        if self.dim is not None and not self.block_size and not self.n_m_ratio:
            raise ValueError("dim: it is the dimension of blocks or of n:m; give block_size or n_m_ratio with it")
        return self


class PostTrainingConfig(_Structured):
    """Data-free: zero the smallest weights of each layer, single ones, blocks or n of m, or all up to a `threshold`.

    A threshold promises no sparsity: a layer that ends less than half zero is stored dense, as Core ML Tools does.
    """

    title: ClassVar[str] = "Post-training pruning"
    needs_data: ClassVar[bool] = False
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


class SparseGPTConfig(_WithRatio):
    """Layer by layer, what is pruned is made up for by the weights that stay, fitted on a few unlabelled images."""

    title: ClassVar[str] = "SparseGPT"
    needs_data: ClassVar[bool] = True
    has_trials: ClassVar[bool] = False
    prunes_groups: ClassVar[bool] = False

    algorithm: Literal["sparse-gpt"] = "sparse-gpt"
    weight_dtype: Literal["float32", "uint8"] = Field(
        "float32", description="uint8: pruned and quantized to 8 bits in one, rounding made up for as well"
    )
    calibration_samples: int = Field(128, ge=1, description="training images the layers are fitted to")
    hessian_dampening: float = Field(0.01, gt=0)
    batchnorm_samples: int = Field(
        0, ge=0, description="training images on which BatchNorm statistics are measured again afterwards; 0: not"
    )

    @property
    def pattern(self) -> Pattern | None:
        return Pattern(along="row", size=self.n_m_ratio[1], zeros=self.n_m_ratio[0]) if self.n_m_ratio else None

    @property
    def joint_bits(self) -> int | None:
        return 8 if self.weight_dtype == "uint8" else super().joint_bits

    def _extras(self) -> list[str]:
        joint = ["jointly 8-bit"] if self.weight_dtype == "uint8" else []
        return [*joint, *(["BatchNorm re-estimated"] if self.batchnorm_samples else [])]

    @model_validator(mode="after")
    def _quantized_once(self) -> Self:
        if self.weight_dtype == "uint8" and (self.quantize_bits or self.palettize_bits):
            raise ValueError("weight_dtype = 'uint8' quantizes already: leave out quantize_bits and palettize_bits")
        if self.weight_dtype == "uint8" and self.coremltools is not None:
            raise ValueError("a Core ML Tools config says itself what weight_dtype is: leave out 'weight_dtype'")
        return self


class ReconstructionConfig(PruningConfig):
    """Zeros, by default SparseGPT's; then each block is fitted to the dense network's, on a few unlabelled images."""

    title: ClassVar[str] = "Blockwise reconstruction"
    needs_data: ClassVar[bool] = True
    has_trials: ClassVar[bool] = True
    prunes_groups: ClassVar[bool] = False

    algorithm: Literal["blockwise-reconstruction"] = "blockwise-reconstruction"
    zeros: Literal["sparse-gpt", "magnitude"] = Field("sparse-gpt", description="what chooses the weights that go")
    calibration_samples: int = Field(300, ge=4, description="training images, those held back among them")
    held_back_samples: int = Field(50, ge=1, description="of them, not fitted to: they choose a block's rate")
    views: int = Field(4, ge=1, description="of each image fitted to: as in evaluation, the others augmented")
    steps: int = Field(200, ge=1, description="of Adam, for each block and rate")
    batch_size: int = Field(24, ge=1, description="images of a step at most; fewer where a block's input is large")
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.01, 0.03, 0.1),
        min_length=1,
        description="each block is fitted with all, and keeps what errs least on the images held back; of the first "
        "step, in units of a tensor's root mean square and the error's root",
    )
    hessian_dampening: float = Field(0.1, gt=0, description="SparseGPT's, ten times its default")
    activations: Literal["memory", "disk"] = Field(
        "memory", description="where those of a block are kept, in Float16; disk: in the folder for temporary files"
    )

    def start(self) -> SparseGPTConfig | PostTrainingConfig:
        """What chooses the zeros. It does not see the images that are held back, unless there are too few of all."""
        shared = {name: getattr(self, name) for name in PruningConfig.model_fields if name != "algorithm"}
        if self.zeros == "magnitude":
            return PostTrainingConfig(**shared)
        samples = self.calibration_samples - self.held_back_samples
        return SparseGPTConfig(**shared, calibration_samples=samples, hessian_dampening=self.hessian_dampening)

    def _extras(self) -> list[str]:
        return ["zeros by magnitude"] if self.zeros == "magnitude" else []

    @model_validator(mode="after")
    def _some_are_fitted(self) -> Self:
        if self.held_back_samples > self.calibration_samples // 2:
            raise ValueError(
                f"held_back_samples ({self.held_back_samples}) leaves less than half of calibration_samples "
                f"({self.calibration_samples}): give {self.calibration_samples // 2} or less, such as a sixth"
            )
        if self.zeros == "magnitude" and self.coremltools is not None:
            raise ValueError("a Core ML Tools config is SparseGPT's: leave out 'zeros'")
        return self


class MagnitudePrunerConfig(_Structured):
    """Raise the sparsity to its target along a polynomial schedule while fine-tuning; then keep the mask."""

    title: ClassVar[str] = "MagnitudePruner"
    needs_data: ClassVar[bool] = True
    has_trials: ClassVar[bool] = True

    algorithm: Literal["magnitude-pruner"] = "magnitude-pruner"
    training: TrainingConfig
    distillation: Distillation | None = None
    granularity: Literal["per_scalar", "per_kernel", "per_channel"] = Field(
        "per_scalar", description="what is zero as a whole: single weights, the kernel of two channels, output channels"
    )
    initial_sparsity: float = Field(0.0, ge=0, lt=1)
    pruning_start: float = Field(0.0, ge=0, lt=1, description="share of the steps before the sparsity begins to rise")
    pruning_share: float = Field(0.5, gt=0, le=1, description="share of the steps after which the target is reached")
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

    def _extras(self) -> list[str]:
        return [*super()._extras(), *(["distilled"] if self.distillation else [])]

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

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.pruning_start >= self.pruning_share:
            raise ValueError(
                f"pruning_start ({self.pruning_start:g}) is not below pruning_share ({self.pruning_share:g})"
            )
        return self


AnyPruningConfig = Annotated[
    PostTrainingConfig | SparseGPTConfig | ReconstructionConfig | MagnitudePrunerConfig,
    Field(discriminator="algorithm"),
]

ALGORITHMS: dict[str, type[PruningConfig]] = {
    "post-training": PostTrainingConfig,
    "sparse-gpt": SparseGPTConfig,
    "blockwise-reconstruction": ReconstructionConfig,
    "magnitude-pruner": MagnitudePrunerConfig,
}
