"""What the typed configs of all pruning algorithms share; each algorithm's own stands in its folder.

Data alone: nothing here imports torch or coremltools, so suites are read and cells are found up to date in an instant.
"""

from abc import ABC
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from coreml_prune_bench.models.config import Config, Distillation, Scope, TrainingConfig
from coreml_prune_bench.models.errors import fraction_hint
from coreml_prune_bench.models.pattern import Pattern

Takes = Literal["images", "labels", "session"]
"""images: training or synthetic ones. labels: and what they show. session: where and how it runs, with checkpoints."""


class PruningConfig(Config, ABC):
    """How much is pruned where: an amount (and a scope), or Core ML Tools' own config; never both.

    What is true of an algorithm whatever its config says: title, its name in tables. takes: what it is given.
    has_trials: the order of the training images matters. prunes_groups: it can prune convolutions with groups.
    """

    title: ClassVar[str]
    takes: ClassVar[frozenset[Takes]]
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
        "from what pruning it alone does to the network's outputs on a few images",
    )
    scope: Scope | None = Field(None, description="the pruned layers; the network's default scope if absent")
    quantize_bits: Literal[4, 8] | None = Field(
        None, description="the pruned layers' remaining weights are then quantized, linearly, per output channel"
    )
    palettize_bits: Literal[1, 2, 3, 4, 6, 8] | None = Field(
        None, description="the pruned layers' remaining weights are then palettized, with a table for each layer"
    )
    coremltools: dict[str, Any] | None = Field(None, description="a config of Core ML Tools, as read from its YAML")

    @property
    def needs_data(self) -> bool:
        """Whether it sees training images."""
        return "images" in self.takes

    @property
    def takes_synthetic(self) -> bool:
        """Whether it sees images that nobody took."""
        return "images" in self.takes and not self.needs_data

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
                hint = fraction_hint(sparsity)
                raise ValueError(f"{pattern!r}: expected a sparsity from 0 to less than 1, got {sparsity!r}{hint}")
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
        if "images" not in self.takes:
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


class RatioConfig(PruningConfig, ABC):
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


class CalibratedConfig(PruningConfig, ABC):
    """What algorithms share that look at a few images and read no labels."""

    takes: ClassVar[frozenset[Takes]] = frozenset({"images", "session"})

    calibration_images: Literal["train", "synthetic"] = Field(
        "train", description="which images are looked at: training images, or drawn shapes, where there are none"
    )

    @property
    def needs_data(self) -> bool:
        return self.calibration_images == "train"

    def _extras(self) -> list[str]:
        return [*super()._extras(), *(["synthetic images"] if self.takes_synthetic else [])]


class StructuredConfig(RatioConfig, ABC):
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


class TrainedConfig(PruningConfig, ABC):
    """Zeros that become more along a fine-tuning."""

    takes: ClassVar[frozenset[Takes]] = frozenset({"images", "labels", "session"})
    has_trials: ClassVar[bool] = True

    training: TrainingConfig
    distillation: Distillation | None = None
    initial_sparsity: float = Field(0.0, ge=0, lt=1)
    pruning_start: float = Field(0.0, ge=0, lt=1, description="share of the steps before the sparsity begins to rise")
    pruning_share: float = Field(0.5, gt=0, le=1, description="share of the steps after which the target is reached")

    def _extras(self) -> list[str]:
        return [*super()._extras(), *(["distilled"] if self.distillation else [])]

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.pruning_start >= self.pruning_share:
            raise ValueError(
                f"pruning_start ({self.pruning_start:g}) is not below pruning_share ({self.pruning_share:g})"
            )
        return self
