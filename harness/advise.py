"""`advise`: which algorithm and which config? The road of Core ML Tools' guide, walked by measuring.

The dense network first; then configs without data, which tells sizes; then the algorithms from the cheapest to the
dearest, each searched for its sparsest config that stays within the allowed drop. A drop counts as within only where
the images that are there to choose by show it. What was chosen is judged once, on images that had no say in it.

Every package on the way is an ordinary cell with its record, so that a stopped walk goes on where it was. This module
decides; it imports neither torch nor coremltools, which are for those who build.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict

from harness.budget import Budget, OutOfTimeError, duration
from harness.cells import Cell, Subject
from harness.errors import BenchError
from harness.records import Record
from harness.scored_records import right
from harness.statistics import score_interval
from models.config import (
    AnyPruningConfig,
    Distillation,
    MagnitudePrunerConfig,
    PostTrainingConfig,
    PruningConfig,
    ReconstructionConfig,
    SparseGPTConfig,
    TrainingConfig,
)

ALPHA = 0.2
"""How likely a config is taken that loses just more than it may; of one side, so that intervals cover 60 %."""

_LEVELS = tuple(round(0.05 * step, 2) for step in range(2, 19))
"""Sparsities that are tried, 10 to 90 %."""
_EXPLORED = (0.1, 0.5)
"""Of each storage form, without data. Bytes are a straight line in the sparsity: two say all."""
_PATTERNS: tuple[dict[str, Any], ...] = ({"n_m_ratio": (2, 4)}, {"sparsity": 0.5, "block_size": 4})
_SMALLER = 1.01
"""Times smaller than the best so far, for a package to be worth trying."""
_FASTER = 0.98
_IMAGES_A_CLASS = 10
"""Of training images at least, for fine-tuning on labels to be worth trying."""
_BATCHNORM_SAMPLES = 256
_FINE_TUNING = TrainingConfig(
    epochs=10, learning_rate=0.01, schedule="cosine", warmup_share=0.05, decay_all=False, batchnorm_samples=1024
)
"""Of a pre-trained network."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True)


class Goal(_Data):
    """max_drop: points of top-1 that may be lost. min_ratio: None for as small as that allows. eight_bits: iOS18 may be
    needed, for packages that are sparse and quantized.
    """

    max_drop: float
    min_ratio: float | None = None
    eight_bits: bool = True


class Difference(_Data):
    """Top-1 beside the dense network's on the same images, in %. drop, and low to high (see ALPHA), in points."""

    images: int
    top1: float
    dense_top1: float
    drop: float
    low: float
    high: float


class Tried(_Data):
    """A package, and what the images to choose by say. ratio: bytes of weight.bin, dense over this one.

    within: whether they show that the drop is within the goal's. latency_ms: of this package on Apple hardware, where
    the results folder has a record of it. front: no other is both smaller and more accurate.
    """

    algorithm: str
    title: str
    config: str
    settings: dict[str, Any]
    record: str
    weight_bytes: int
    ratio: float
    selection: Difference
    within: bool
    latency_ms: float | None
    front: bool = False


class Advice(_Data):
    """What was tried, decided and found. chosen: an index of `tried`; None where nothing was within the goal.

    best: what comes closest to the goal then. final: the chosen package, or the best, on the images that judge.
    """

    network: str
    title: str
    data: str
    goal: Goal
    training_images: int
    dense_weight_bytes: int
    tried: tuple[Tried, ...]
    decisions: tuple[str, ...]
    chosen: int | None
    best: int | None
    final: Difference | None

    @property
    def met(self) -> bool:
        """Whether the chosen package is within the goal on images that had no say in the choice."""
        return self.chosen is not None and self.final is not None and self.final.drop <= self.goal.max_drop


@dataclass(frozen=True)
class Attempt:
    """A config with its record, and what is said of it."""

    config: AnyPruningConfig
    record: Record
    tried: Tried


@dataclass(frozen=True)
class _Form:
    """How the kept weights are stored: what a config says for it, and the bytes of weight.bin at two sparsities."""

    fields: dict[str, Any]
    bytes_at: dict[float, int]

    def bytes_of(self, sparsity: float) -> float:
        """What is to be expected: another algorithm may leave other layers dense."""
        (low, low_bytes), (high, high_bytes) = sorted(self.bytes_at.items())
        return low_bytes + (high_bytes - low_bytes) * (sparsity - low) / (high - low)


class Road:
    """One walk. selection, final: the network on the images to choose by, and on those that judge.

    measure: builds and measures a cell or finds its record; raises OutOfTimeError as `budget` says. fitted: leaves the
    layers of a config dense that cannot take its pattern. latencies: milliseconds by the SHA-256 of a package.
    """

    def __init__(
        self,
        selection: Subject,
        final: Subject,
        goal: Goal,
        *,
        measure: Callable[[Cell], Record],
        fitted: Callable[[PostTrainingConfig], PostTrainingConfig],
        latencies: dict[str, float],
        budget: Budget,
        say: Callable[[str], None],
    ) -> None:
        self.attempts: list[Attempt] = []
        self.selection = selection
        self._final = final
        self._goal = goal
        self._measure = measure
        self._fitted = fitted
        self._latencies = latencies
        self._budget = budget
        self._tell = say
        self._decisions: list[str] = []
        assert selection.data.train is not None, "a part of a data set has training images"
        self._training_images = len(selection.data.train)

    def walk(self) -> Advice:
        """Raises BenchError for what the user can mend, a budget too small for anything among it."""
        try:
            self._dense = self._measure(Cell(self.selection, None, 0))
            self._dense_final = self._measure(Cell(self._final, None, 0))
            self._keep_time_to_judge()
            form, patterns = self._explore()
        except OutOfTimeError as error:
            raise BenchError(
                f"the budget is too small: {error}. What was measured is kept: the same command with a larger --budget "
                "goes on from there"
            ) from error
        for algorithm in (PostTrainingConfig, SparseGPTConfig, ReconstructionConfig, MagnitudePrunerConfig):
            if not self._is_done() and self._has_what_it_needs(algorithm):
                self._in_time(algorithm, partial(self._search, algorithm, form))
                for fields in patterns if algorithm is not PostTrainingConfig else ():
                    if fields.keys() <= algorithm.model_fields.keys():
                        self._in_time(algorithm, partial(self._try, algorithm, {**fields, **form.fields}))
        return self._judged()

    # --- the steps

    def _explore(self) -> tuple[_Form, list[dict[str, Any]]]:
        """Without data: what sizes there are, the storage form that is followed, and patterns that are."""
        float16, (few, half) = self._form({})
        tried = [(fields, self._try(PostTrainingConfig, fields)) for fields in _PATTERNS]
        patterns = [fields for fields, one in tried if one is not None and self._is_faster(one.tried, half.tried)]
        if not self._goal.eight_bits:
            return float16, patterns
        quantized, (few_quantized, _) = self._form({"quantize_bits": 8})
        cost = difference(few.record, few_quantized.record)
        told = f"8 bits for the kept weights cost {cost.drop:.2f} points ({cost.low:.2f} to {cost.high:.2f})"
        if cost.low > 0:
            self._say(f"{told} at {100 * _EXPLORED[0]:g} %: they stay Float16")
            return float16, patterns
        self._say(
            f"{told} at {100 * _EXPLORED[0]:g} %, and give a ratio of {few_quantized.tried.ratio:.2f} in place of "
            f"{few.tried.ratio:.2f}: followed. Such packages need iOS18 / macOS15; --float16 does without"
        )
        return quantized, patterns

    def _form(self, fields: dict[str, Any]) -> tuple[_Form, list[Attempt]]:
        """A storage form at the explored sparsities."""
        found = []
        for sparsity in _EXPLORED:
            attempt = self._try(PostTrainingConfig, {"sparsity": sparsity, **fields})
            if attempt is None:
                raise BenchError(f"{self.selection.network.name} cannot be pruned. {self._decisions[-1]}")
            found.append(attempt)
        sizes = {sparsity: one.tried.weight_bytes for sparsity, one in zip(_EXPLORED, found, strict=True)}
        return _Form(fields, sizes), found

    def _is_faster(self, pattern: Tried, unstructured: Tried) -> bool:
        """Whether the pattern is worth following: it takes no less and keeps no more than single weights can."""
        told = (
            f"{pattern.config}: ratio {pattern.ratio:.2f} and top-1 {pattern.selection.top1:.2f}, "
            f"{unstructured.config}: {unstructured.ratio:.2f} and {unstructured.selection.top1:.2f}"
        )
        if pattern.latency_ms is None or unstructured.latency_ms is None:
            self._say(f"{told}. Only speed could speak for the pattern, and no latency of both is known: not followed")
            return False
        faster = pattern.latency_ms < _FASTER * unstructured.latency_ms
        speeds = f"{pattern.latency_ms:.2f} against {unstructured.latency_ms:.2f} ms"
        self._say(f"{told}. {speeds}: {'followed' if faster else 'not followed'}")
        return faster

    def _search(self, algorithm: type[PruningConfig], form: _Form) -> None:
        """By bisection, the sparsest config that is within the drop; with a ratio asked for, the first that has both.

        It begins where the least has to be pruned: what fails there fails everywhere.
        """
        levels = [level for level in _LEVELS if self._dense_bytes >= self._least_ratio() * form.bytes_of(level)]
        if not levels:
            self._say(f"{algorithm.title}: nothing up to {100 * _LEVELS[-1]:g} % is small enough to be worth trying")
            return
        within, beyond, level = -1, len(levels), 0
        while beyond - within > 1:
            attempt = self._try(algorithm, {"sparsity": levels[level], **form.fields})
            if attempt is None or not attempt.tried.within:
                beyond = level
            elif self._goal.min_ratio is not None and self._is_small_enough(attempt.tried):
                return
            else:
                within = level
            level = (within + beyond) // 2

    def _try(self, algorithm: type[PruningConfig], fields: dict[str, Any]) -> Attempt | None:
        """Measure a config and tell what it loses; None where its cell failed."""
        config = self._config(algorithm, fields)
        for attempt in self.attempts:
            if attempt.config == config:
                return attempt
        record = self._measure(Cell(self.selection, config, 0))
        if record.package is None or record.predictions is None:
            self._say(f"{config.title}, {config.name}: failed: {record.reason}")
            return None
        found = difference(self._dense, record)
        tried = Tried(
            algorithm=config.algorithm,
            title=config.title,
            config=config.name,
            settings=config.model_dump(mode="json"),
            record=record.key,
            weight_bytes=record.package.weight_bytes,
            ratio=self._dense_bytes / record.package.weight_bytes,
            selection=found,
            within=found.high <= self._goal.max_drop,
            latency_ms=self._latencies.get(record.package.sha256),
        )
        verdict = "within" if tried.within else "too much" if found.drop > self._goal.max_drop else "not surely within"
        self._say(
            f"{tried.title}, {tried.config}: ratio {tried.ratio:.2f}, loses {found.drop:.2f} points "
            f"({found.low:.2f} to {found.high:.2f}), {verdict}"
        )
        self.attempts.append(Attempt(config, record, tried))
        return self.attempts[-1]

    def _config(self, algorithm: type[PruningConfig], fields: dict[str, Any]) -> AnyPruningConfig:
        if algorithm is PostTrainingConfig:
            return self._fitted(PostTrainingConfig(**fields))
        # Where single weights go, layers may differ, which costs nothing and saves the small networks.
        own = {"allocation": "sensitivity"} if not fields.keys() & {"n_m_ratio", "block_size"} else {}
        if algorithm is SparseGPTConfig:
            return SparseGPTConfig(**fields, **own, batchnorm_samples=_BATCHNORM_SAMPLES)
        if algorithm is ReconstructionConfig:
            return ReconstructionConfig(**fields, **own)
        return MagnitudePrunerConfig(**fields, **own, training=self._fine_tuning(), distillation=Distillation())

    def _fine_tuning(self) -> TrainingConfig:
        """Half of what trained the network here, or what a pre-trained one bears."""
        dense = self.selection.training
        if dense is None:
            return _FINE_TUNING
        return dense.model_copy(update={"epochs": -(-dense.epochs // 2), "learning_rate": dense.learning_rate / 2})

    # --- when to go on, and when to stop

    def _has_what_it_needs(self, algorithm: type[PruningConfig]) -> bool:
        needed = _IMAGES_A_CLASS * len(self.selection.data.classes)
        if algorithm is not MagnitudePrunerConfig or self._training_images >= needed:
            return True
        self._say(
            f"{algorithm.title} learns from labels: {self._training_images:,} training images are too few for "
            f"{len(self.selection.data.classes):,} classes, it takes {needed:,}: not tried"
        )
        return False

    def _is_done(self) -> bool:
        return self._budget.left_s <= 0 or (self._goal.min_ratio is not None and self._smallest_within() is not None)

    def _in_time(self, algorithm: type[PruningConfig], step: Callable[[], object]) -> None:
        """Take a step; where it would end after the budget it is left, and that is told."""
        if self._is_done():
            return
        try:
            step()
        except OutOfTimeError as error:
            self._say(f"{algorithm.title} is left, for lack of time. {error}; with a larger --budget it goes on there")

    def _least_ratio(self) -> float:
        smallest = self._smallest_within()
        return max(self._goal.min_ratio or 1.0, _SMALLER * smallest.tried.ratio if smallest is not None else 1.0)

    def _is_small_enough(self, tried: Tried) -> bool:
        return tried.ratio >= (self._goal.min_ratio or 1.0)

    def _smallest_within(self) -> Attempt | None:
        """The smallest that meets the goal, as far as the images to choose by can tell."""
        meeting = [one for one in self.attempts if one.tried.within and self._is_small_enough(one.tried)]
        return max(meeting, key=lambda attempt: attempt.tried.ratio, default=None)

    def _keep_time_to_judge(self) -> None:
        """As much as one more package takes on the images that judge, and a build that cannot be interrupted."""
        spent = self._dense_final.provenance
        self._budget.reserve_s = 1.5 * (spent.evaluate_seconds or 0.0) + (spent.build_seconds or 0.0) + 5.0
        if self._budget.left_s <= 0:
            raise OutOfTimeError(f"to judge a choice takes {duration(self._budget.reserve_s)} alone")

    # --- the end

    def _judged(self) -> Advice:
        """The smallest within the goal, or what lost least among those that are small enough, judged."""
        chosen = self._smallest_within()
        closest = [attempt for attempt in self.attempts if self._is_small_enough(attempt.tried)]
        best = chosen or min(closest, key=lambda attempt: attempt.tried.selection.drop, default=None)
        final = None
        if best is not None:
            self._budget.lift()
            final = difference(self._dense_final, self._measure(Cell(self._final, best.config, 0)))
        tried = [attempt.tried for attempt in self.attempts]
        return Advice(
            network=self.selection.network.name,
            title=self.selection.network.title,
            data=self.selection.data.spec.rpartition("#")[0],
            goal=self._goal,
            training_images=self._training_images,
            dense_weight_bytes=self._dense_bytes,
            tried=tuple(one.model_copy(update={"front": is_on_front(one, tried)}) for one in tried),
            decisions=tuple(self._decisions),
            chosen=None if chosen is None else self.attempts.index(chosen),
            best=None if best is None else self.attempts.index(best),
            final=final,
        )

    @property
    def _dense_bytes(self) -> int:
        assert self._dense.package is not None, "the dense network was measured"
        return self._dense.package.weight_bytes

    def _say(self, line: str) -> None:
        self._decisions.append(line)
        self._tell(line)


def difference(dense: Record, pruned: Record) -> Difference:
    """Two records of the same images: what the second loses, with Tango's interval of a paired difference."""
    assert dense.predictions, "the dense network was measured"
    assert pruned.predictions, "a cell that failed is no package"
    before, after = right(dense.predictions), right(pruned.predictions)
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    low, high = score_interval(lost, gained, len(before), ALPHA)
    return Difference(
        images=len(before),
        top1=100 * float(after.mean()),
        dense_top1=100 * float(before.mean()),
        drop=100 * (lost - gained) / len(before),
        low=-100 * high,
        high=-100 * low,
    )


def is_on_front(one: Tried, all_: Sequence[Tried]) -> bool:
    """Whether none is as small and as accurate, and better in one of both."""

    def beats(other: Tried) -> bool:
        better = (other.weight_bytes < one.weight_bytes, other.selection.top1 > one.selection.top1)
        worse = (other.weight_bytes > one.weight_bytes, other.selection.top1 < one.selection.top1)
        return any(better) and not any(worse)

    return not any(map(beats, all_))
