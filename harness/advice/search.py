"""`advise`: which algorithm and which config? Core ML Tools' guide, followed by measuring.

The dense network first; then configs without data, which tells sizes; then the algorithms from the cheapest to the
dearest, each searched for its sparsest config that stays within the allowed drop. A drop counts as within only where
the images that are there to choose by show it. What was chosen is judged once, on images that had no say in it.

Every package on the way is an ordinary cell with its record, so that a stopped search goes on where it was. This module
decides; it imports neither torch nor coremltools, which are for those who build.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from coreml_prune_bench.advice.advice import (
    ALPHA,
    Advice,
    Goal,
    Tried,
    difference,
    is_on_front,
)
from coreml_prune_bench.advice.budget import Budget, OutOfTimeError, duration
from coreml_prune_bench.bench.cells import Cell, Subject
from coreml_prune_bench.bench.formats.protocol import PackageFormat
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models.config import TrainingConfig
from coreml_prune_bench.models.pruning.algorithm import Algorithm, algorithm_of, algorithms
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.records.chance import guesses
from coreml_prune_bench.records.statistics import score_interval

_DATA_FREE = algorithm_of(PostTrainingConfig(sparsity=0.5))
"""What is explored with, because it costs next to nothing."""

_LEVELS = tuple(round(0.05 * step, 2) for step in range(2, 19))
"""Sparsities that are tried, 10 to 90 %."""
_EXPLORED = (0.1, 0.5)
"""Of each storage form, without data. Bytes are a straight line in the sparsity: two say all."""
_PATTERNS: tuple[dict[str, Any], ...] = ({"n_m_ratio": (2, 4)}, {"sparsity": 0.5, "block_size": 4})
_IMAGES_A_CLASS = 10
"""Of training images at least, for fine-tuning on labels to be worth trying."""
_SPARE_S = 5.0
_FINE_TUNING = TrainingConfig(
    epochs=10, learning_rate=0.01, schedule="cosine", warmup_share=0.05, decay_all=False, batchnorm_samples=1024
)
"""Of a pre-trained network."""


@dataclass(frozen=True)
class Attempt:
    """A config with its record, and what is said of it."""

    config: PruningConfig
    record: Record
    tried: Tried


@dataclass(frozen=True)
class _Form:
    """How the kept weights are stored: what a config says for it, and packages at the two explored sparsities."""

    fields: dict[str, Any]
    few: Attempt
    half: Attempt

    def bytes_of(self, sparsity: float) -> float:
        """What is to be expected: another algorithm may leave other layers dense."""
        low, high = self.few.tried.weight_bytes, self.half.tried.weight_bytes
        return low + (high - low) * (sparsity - _EXPLORED[0]) / (_EXPLORED[1] - _EXPLORED[0])


class Search:
    """One search. selection, final: the network on the images to choose by, and on those that judge.

    measure: builds and measures a cell or finds its record; raises OutOfTimeError as `budget` says. fitted: leaves the
    layers of a config dense that cannot take its pattern. latencies: milliseconds by the SHA-256 of a package.
    package_format: of every package that is tried.
    """

    def __init__(
        self,
        selection: Subject,
        final: Subject,
        goal: Goal,
        *,
        measure: Callable[[Cell], Record],
        fitted: Callable[[PruningConfig], PruningConfig],
        latencies: dict[str, float],
        package_format: PackageFormat,
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
        self._format = package_format
        self._budget = budget
        self._tell = say
        self._decisions: list[str] = []
        assert selection.data.train is not None, "a part of a data set has training images"
        self._training_images = len(selection.data.train)

    def run(self) -> Advice:
        """Raises BenchError for what the user can mend, a budget too small for anything among it."""
        self._refuse_what_cannot_be_shown()
        form = None
        try:
            self._dense = self._measure_dense(self.selection)
            self._dense_final = self._measure_dense(self._final)
            self._keep_time_to_judge()
            form = self._explore()
        except OutOfTimeError as error:
            if self._smallest_within() is None:
                raise BenchError(
                    f"the budget is too small: {error}. What was measured is kept: the same command with a larger "
                    "--budget goes on from there"
                ) from error
            self._say(f"No time for more. {error}")
        for algorithm in algorithms():
            if algorithm.advised is None:
                continue
            if form is not None and not self._is_found() and self._has_what_it_needs(algorithm):
                try:
                    self._search(algorithm, form)
                except OutOfTimeError as error:
                    self._say(f"{algorithm.title}, no time for more: {error}. With a larger --budget it goes on there")
        return self._judged()

    def cell_of(self, config: PruningConfig) -> Cell:
        """Of a config that is tried, on the images to choose by."""
        return self._cell(self.selection, config)

    # --- the steps

    def _cell(self, subject: Subject, config: PruningConfig | None) -> Cell:
        return Cell(subject, config, 0, package_format=self._format)

    def _measure_dense(self, subject: Subject) -> Record:
        record = self._measure(self._cell(subject, None))
        if record.predictions is None:
            raise BenchError(f"{subject.network.name} cannot be measured: {record.brief_reason}")
        if told := guesses(record.predictions, record.data.classes):
            raise BenchError(f"{subject.network.name} before pruning, {subject.data.val.name}: {told}")
        top1 = 100 * record.predictions.top1
        self._say(f"Dense: top-1 {top1:.2f} % of {len(record.predictions.labels):,} images, {subject.data.val.name}")
        return record

    def _explore(self) -> _Form:
        """Without data: the sizes of Float16 and 8-bit weights, which of both is followed, and patterns."""
        float16 = self._form({})
        if float16 is None:
            raise BenchError(f"{self.selection.network.name} cannot be pruned. {self._decisions[-1]}")
        followed = float16
        if self._goal.eight_bits and (eight := self._form({"quantize_bits": 8})) is not None:
            followed = self._cheaper(float16, eight)
        for fields in _PATTERNS:
            if (attempt := self._try(_DATA_FREE, fields)) is not None:
                self._tell_of_pattern(attempt.tried, float16.half.tried)
        return followed

    def _form(self, fields: dict[str, Any]) -> _Form | None:
        """A storage form at the explored sparsities; None where one of them failed."""
        few, half = (self._try(_DATA_FREE, {"sparsity": sparsity, **fields}) for sparsity in _EXPLORED)
        return None if few is None or half is None else _Form(fields, few, half)

    def _cheaper(self, float16: _Form, eight: _Form) -> _Form:
        """8-bit weights are about half the size: followed unless they alone cost more than may be lost."""
        cost = difference(float16.few.record, eight.few.record)
        told = f"8 bits for the kept weights cost {cost.drop:.2f} points at {100 * _EXPLORED[0]:g} %"
        if cost.drop > self._goal.max_drop:
            self._say(f"{told}, more than may be lost: Float16 is followed")
            return float16
        self._say(
            f"{told}, and give a ratio of {eight.few.tried.ratio:.2f} in place of {float16.few.tried.ratio:.2f}: "
            "followed. Such packages need iOS18 / macOS15; --float16 does without"
        )
        return eight

    def _tell_of_pattern(self, pattern: Tried, unstructured: Tried) -> None:
        """A pattern takes no fewer bytes than single weights of the same number and keeps no more: no way to go on."""
        speeds = (
            "whether it is faster only a Mac can tell: `latency` on it"
            if pattern.latency_ms is None or unstructured.latency_ms is None
            else f"{pattern.latency_ms:.2f} against {unstructured.latency_ms:.2f} ms"
        )
        self._say(
            f"{pattern.config} beside {unstructured.config}: ratio {pattern.ratio:.2f} and {unstructured.ratio:.2f}, "
            f"top-1 {pattern.selection.top1:.2f} and {unstructured.selection.top1:.2f}; {speeds}"
        )

    def _search(self, algorithm: Algorithm, form: _Form) -> None:
        """By bisection, the sparsest config that is within the drop; with a ratio asked for, the first that has both.

        It begins where the least has to be pruned: what fails there fails everywhere.
        """
        levels = [level for level in _LEVELS if self._is_worth_trying(level, form)]
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

    def _try(self, algorithm: Algorithm, fields: dict[str, Any]) -> Attempt | None:
        """Measure a config and tell what it loses; None where its cell failed."""
        config = self._config(algorithm, fields)
        for attempt in self.attempts:
            if attempt.config == config:
                return attempt
        if self._budget.left_s <= 0:
            raise OutOfTimeError("the time is up")
        record = self._measure(self.cell_of(config))
        if record.package is None or record.predictions is None:
            self._say(f"{config.title}, {config.name}: failed: {record.brief_reason}")
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
        self._keep_time_to_judge()
        return self.attempts[-1]

    def _config(self, algorithm: Algorithm, fields: dict[str, Any]) -> PruningConfig:
        """What is tried of an algorithm, with layers left dense that cannot have the pattern of the data-free one.

        No layer is left out by name, as the default scopes leave out MobileNetV2's classifier, which has a third of its
        weights and bears pruning best: whoever sees images leaves dense what does not bear it.
        """
        training = {"training": self._fine_tuning()} if "labels" in algorithm.config.takes else {}
        scope = self.selection.network.scope.model_copy(update={"exclude": ()})
        config = algorithm.config.model_validate(
            {**fields, **(algorithm.advised or {}), **training, "scope": scope.model_dump()}
        )
        return config if config.needs_data else self._fitted(config)

    def _fine_tuning(self) -> TrainingConfig:
        """Half of what trained the network here, or what a pre-trained one bears."""
        config = _FINE_TUNING
        if self._dense.network.trained and (dense := self.selection.training) is not None:
            half = {"epochs": -(-dense.epochs // 2), "learning_rate": dense.learning_rate / 2}
            config = dense.model_copy(update=half)
        return config.model_copy(update={"batch_size": min(config.batch_size, self._training_images)})

    # --- when to go on, and when to stop

    def _has_what_it_needs(self, algorithm: Algorithm) -> bool:
        needed = _IMAGES_A_CLASS * len(self.selection.data.classes)
        if "labels" not in algorithm.config.takes or self._training_images >= needed:
            return True
        self._say(
            f"{algorithm.title} learns from labels: {self._training_images:,} training images are too few for "
            f"{len(self.selection.data.classes):,} classes, it takes {needed:,}: not tried"
        )
        return False

    def _is_found(self) -> bool:
        return self._goal.min_ratio is not None and self._smallest_within() is not None

    def _is_worth_trying(self, sparsity: float, form: _Form) -> bool:
        """Whether it is as small as asked for, and smaller than what is within the goal so far."""
        if form.bytes_of(sparsity) * (self._goal.min_ratio or 1.0) > self._dense_bytes:
            return False
        best = self._smallest_within()
        if best is None:
            return True
        if best.config.quantize_bits == form.fields.get("quantize_bits"):
            return sparsity > (best.config.sparsity or 0.0)
        return form.bytes_of(sparsity) < best.tried.weight_bytes

    def _is_small_enough(self, tried: Tried) -> bool:
        return tried.ratio >= (self._goal.min_ratio or 1.0)

    def _smallest_within(self) -> Attempt | None:
        """The smallest that meets the goal, as far as the images to choose by can tell."""
        meeting = [one for one in self.attempts if one.tried.within and self._is_small_enough(one.tried)]
        return max(meeting, key=lambda attempt: attempt.tried.ratio, default=None)

    def _keep_time_to_judge(self) -> None:
        """As much as one more package takes on the images that judge, and a conversion, which nothing interrupts."""
        without_data = [one for one in self.attempts if isinstance(one.config, PostTrainingConfig)]
        conversions = [attempt.record.provenance.build_seconds or 0.0 for attempt in without_data]
        judging_s = 1.5 * (self._dense_final.provenance.evaluate_seconds or 0.0)
        self._budget.reserve_s = judging_s + max(conversions, default=0.0) + _SPARE_S
        if not self.attempts and self._budget.left_s <= 0:
            raise OutOfTimeError(f"to judge a choice takes {duration(self._budget.reserve_s)} alone")

    def _refuse_what_cannot_be_shown(self) -> None:
        """Raises BenchError where not even a package that answers alike on all images would be within."""
        images, allowed = len(self.selection.data.val), self._goal.max_drop / 100
        if -score_interval(0, 0, images, ALPHA)[0] <= allowed:
            return
        more = "" if not allowed else f"; it takes {_images_to_show(allowed):,}"
        raise BenchError(
            f"--max-drop {self._goal.max_drop:g}: on {images:,} images to choose by not even equal answers on all of "
            f"them show that{more}"
        )

    # --- the end

    def _judged(self) -> Advice:
        """The smallest within the goal, or what lost least among those that are small enough, judged."""
        chosen = self._smallest_within()
        closest = [attempt for attempt in self.attempts if self._is_small_enough(attempt.tried)]
        best = chosen or min(closest, key=lambda attempt: attempt.tried.selection.drop, default=None)
        final = None
        if best is not None:
            self._budget.lift()
            final = difference(self._dense_final, self._measure(self._cell(self._final, best.config)))
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


def _images_to_show(allowed: float) -> int:
    """How many equal answers show a loss of at most `allowed`, a fraction: as of `score_interval`, in closed form."""
    z = NormalDist().inv_cdf(1 - ALPHA)
    return math.ceil(z * z * (1 / allowed - 1))
