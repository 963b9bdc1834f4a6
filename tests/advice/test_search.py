"""What `advise` decides, on scripted networks."""

from dataclasses import replace

import numpy as np
import pytest

from coreml_prune_bench.advice.advice import Goal, difference, is_on_front
from coreml_prune_bench.advice.budget import Budget, OutOfTimeError
from coreml_prune_bench.advice.search import Search
from coreml_prune_bench.bench.cells import Subject
from coreml_prune_bench.bench.formats.mlpackage import MLPACKAGE
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.data import open_data
from coreml_prune_bench.data.halves import PARTS, part_of
from coreml_prune_bench.models.config import Scope, TrainingConfig
from tests.factories import accuracy_record, failed_record
from tests.tiny_network import TINY

IMAGES, DENSE = 1000, 900


def test_a_drop_has_a_sign_a_unit_and_an_interval():
    dense, pruned = (accuracy_record(np.arange(100) < right) for right in (90, 85))
    found = difference(dense, pruned)
    assert (found.images, found.dense_top1, found.top1, found.drop) == (100, 90, 85, pytest.approx(5))
    assert 0 < found.low < 5 < found.high < 10


class Script:
    """The tiny network where accuracy is a function: what is lost, in points, by algorithm, sparsity and 8 bits.

    Bytes are those of a network that is pruned as a whole, 1,000,000 when dense.
    """

    def __init__(self, loses, *, training_images=5_000, fails=(), latencies=None):
        whole = open_data("digits")
        train = _Longer(whole.train, training_images)
        whole = replace(whole, open_train=lambda: train)
        subject = Subject("advise", TINY, whole, False, False, None, TrainingConfig(epochs=4, learning_rate=0.1))
        self.selection, self.final = (replace(subject, data=part_of(whole, part)) for part in PARTS)
        self.loses, self.fails, self.latencies = loses, fails, latencies or {}
        self.cells = []
        self.said = []

    def measure(self, cell):
        self.cells.append(cell)
        config = cell.config
        if config is None:
            return accuracy_record(np.arange(IMAGES) < DENSE, algorithm="dense", weight_bytes=1_000_000)
        if config.algorithm in self.fails:
            return failed_record()
        sparsity = config.sparsity or 0.5
        eight = config.quantize_bits == 8
        lost = 10 * self.loses(config.algorithm, sparsity, eight)
        size = round(1_000_000 * ((1 - sparsity) * (0.5 if eight else 1) + 1 / 16))
        return accuracy_record(np.arange(IMAGES) < DENSE - lost, weight_bytes=size, sha256=config.name)

    def walk(self, budget=None, **goal):
        self.road = Search(
            self.selection,
            self.final,
            Goal(**goal),
            measure=self.measure,
            fitted=lambda config: config,
            latencies=self.latencies,
            package_format=MLPACKAGE,
            budget=budget or Budget(3600),
            say=self.said.append,
        )
        return self.road.run()

    def sparsities(self, algorithm):
        """Those that were tried, in order."""
        return [one.config.sparsity for one in self.road.attempts if one.config.algorithm == algorithm]


class _Longer:
    """A train split that says it is longer."""

    def __init__(self, split, count):
        self._split, self._count = split, count

    def __len__(self):
        return self._count

    def __getattr__(self, name):
        return getattr(self._split, name)


def cliff(**sparsest):
    """Nothing is lost up to an algorithm's sparsest, and 20 points beyond."""
    return lambda algorithm, sparsity, eight: 20 * (sparsity > sparsest.get(algorithm.replace("-", "_"), 0))


def test_the_smallest_package_within_the_drop_is_found_and_no_algorithm_tries_what_is_not_smaller():
    script = Script(cliff(post_training=0.3, sparse_gpt=0.6, blockwise_reconstruction=0.6, magnitude_pruner=0.85))
    advice = script.walk(max_drop=1)
    best = advice.tried[advice.chosen]
    assert (best.algorithm, best.settings["sparsity"], best.within) == ("magnitude-pruner", 0.85, True)
    assert (advice.met, advice.final.drop, advice.best) == (True, 0, advice.chosen)
    assert min(script.sparsities("sparse-gpt")) == 0.35
    assert script.sparsities("blockwise-reconstruction") == [0.65]
    assert len(script.sparsities("magnitude-pruner")) <= 4  # of 5: 65 to 90 %


def test_with_a_ratio_the_first_that_meets_both_ends_the_search():
    script = Script(cliff(post_training=0.3, sparse_gpt=0.6, blockwise_reconstruction=0.8, magnitude_pruner=0.9))
    advice = script.walk(max_drop=1, min_ratio=3)  # 8 bits: 45 % makes 2.96, 50 % makes 3.2
    best = advice.tried[advice.chosen]
    assert (best.algorithm, best.settings["sparsity"]) == ("sparse-gpt", 0.5)
    assert best.ratio >= 3
    assert script.sparsities("blockwise-reconstruction") == []


def test_no_layer_is_left_out_by_name():
    """MobileNetV2's classifier stays dense in the published scope, and is a third of its weights."""
    script = Script(cliff(post_training=0.3, sparse_gpt=0.6))
    network = replace(TINY, scope=Scope(depthwise=False, exclude=("classifier",), min_elements=8))
    script.selection, script.final = (replace(one, network=network) for one in (script.selection, script.final))
    script.walk(max_drop=1)
    scopes = {one.config.scope for one in script.road.attempts}
    assert scopes == {Scope(depthwise=False, min_elements=8)}


def test_a_loss_that_may_be_more_than_allowed_is_not_within():
    """Of 1,000 images 10 are lost: 1.0 points, but 1.3 cannot be excluded."""
    script = Script(lambda algorithm, sparsity, eight: 1.0)
    assert not any(tried.within for tried in script.walk(max_drop=1.0).tried)
    assert "not surely within" in script.said[2]
    assert all(tried.within for tried in Script(lambda *_: 1.0).walk(max_drop=1.5).tried)


def test_a_goal_that_cannot_be_met_ends_with_what_comes_closest():
    script = Script(lambda algorithm, sparsity, eight: 30 * sparsity / (1 + (algorithm == "sparse-gpt")))
    advice = script.walk(max_drop=1, min_ratio=2)
    assert (advice.met, advice.chosen) == (False, None)
    closest = advice.tried[advice.best]
    assert (closest.algorithm, closest.ratio >= 2) == ("sparse-gpt", True)
    assert advice.final.drop == closest.selection.drop


def test_a_choice_that_fails_on_the_images_that_judge_is_not_met():
    script = Script(cliff(sparse_gpt=0.9))
    measure = script.measure

    def worse_there(cell):
        record = measure(cell)
        final = cell.subject is script.final and cell.config is not None
        return accuracy_record(np.arange(IMAGES) < 800) if final else record

    script.measure = worse_there
    advice = script.walk(max_drop=1)
    assert (advice.met, advice.chosen is None, advice.final.drop) == (False, False, pytest.approx(10))


def test_the_images_that_judge_are_asked_once_and_at_the_end():
    script = Script(cliff(sparse_gpt=0.5))
    script.walk(max_drop=1)
    asked = [cell.config for cell in script.cells if cell.subject is script.final]
    assert asked == [None, script.cells[-1].config]
    assert script.cells[-1].subject is script.final


def test_8_bits_are_followed_unless_they_alone_cost_too_much_or_packages_must_run_on_ios17():
    def last_bits(script, **goal):
        return script.walk(max_drop=1, **goal).tried[-1].settings["quantize_bits"]

    free = Script(cliff(sparse_gpt=0.5))
    assert last_bits(free) == 8
    cheap = Script(lambda algorithm, sparsity, eight: 0.5 if eight else 0.0)
    assert last_bits(cheap) == 8
    dear = Script(lambda algorithm, sparsity, eight: 5.0 if eight else 0.0)
    assert last_bits(dear) is None
    assert any("more than may be lost: Float16 is followed" in line for line in dear.said)
    plain = Script(cliff(sparse_gpt=0.5))
    assert {tried.settings["quantize_bits"] for tried in plain.walk(max_drop=1, eight_bits=False).tried} == {None}


def test_the_front_counts_latencies_where_they_are_known():
    names = "2:4 Sparsity", "Unstructured Sparsity 50%"
    for speeds in ((1.0, 2.0), (2.0, 1.0)):
        script = Script(cliff(), latencies=dict(zip(names, speeds, strict=True)))
        tried = {one.config: one for one in script.walk(max_drop=1, eight_bits=False).tried}
        alike = [tried[name] for name in names]  # as large and as accurate
        assert [is_on_front(one, alike) for one in alike] == [speed == min(speeds) for speed in speeds]
        assert any(f"{speeds[0]:.2f} against {speeds[1]:.2f} ms" in line for line in script.said)


def test_few_training_images_are_no_use_for_fine_tuning():
    script = Script(cliff(), training_images=99)
    script.walk(max_drop=1)
    assert script.sparsities("magnitude-pruner") == []
    assert any("99 training images are too few for 10 classes, it takes 100" in line for line in script.said)


def test_an_algorithm_that_fails_leaves_the_others():
    script = Script(cliff(magnitude_pruner=0.5), fails=("sparse-gpt", "blockwise-reconstruction"))
    advice = script.walk(max_drop=1)
    assert advice.tried[advice.chosen].algorithm == "magnitude-pruner"
    assert sum("failed: layer x is dense" in line for line in script.said) == 2


@pytest.mark.parametrize("seconds", range(70, 180, 10))
def test_no_step_is_begun_after_the_time_and_the_choice_is_judged_all_the_same(clock, seconds):
    script = Script(cliff(post_training=0.3, sparse_gpt=0.9))
    measure = script.measure

    def slow(cell):
        clock[0] += 10
        return measure(cell)

    script.measure = slow
    advice = script.walk(budget=Budget(seconds), max_drop=1)
    assert advice.met
    assert clock[0] <= 100 + seconds + 10  # a step whose length nobody knew
    assert advice.tried[advice.chosen].algorithm == ("sparse-gpt" if seconds > 130 else "post-training")
    assert any("No time for more" in line or "no time for more" in line for line in script.said)


def test_a_dense_network_that_fails_is_told_in_a_line():
    script = Script(cliff())
    script.measure = lambda cell: failed_record()
    with pytest.raises(BenchError, match=r"^tiny cannot be measured: layer x is dense$"):
        script.walk(max_drop=1)


@pytest.mark.parametrize("right", [0, 3])
def test_a_dense_network_that_only_guesses_is_refused_before_anything_is_pruned(right, draw):
    """Of ten classes: never right, or right as often as answers that were dealt out at random."""
    script = Script(cliff())
    labels = np.arange(IMAGES) % 10
    best = (labels + 1) % 10 if not right else draw.permutation(labels)
    predictions = {"labels": labels.tolist(), "top5": [[one] for one in best.tolist()]}
    dense = accuracy_record(np.zeros(IMAGES), algorithm="dense", predictions=predictions)
    script.measure = lambda cell: script.cells.append(cell) or dense
    with pytest.raises(
        BenchError, match=r"^tiny before pruning, val, selection: top-1 .* is not shown to be above chance"
    ):
        script.walk(max_drop=1)
    assert [cell.config for cell in script.cells] == [None]


def test_a_network_that_cannot_be_pruned_is_told_in_a_line():
    with pytest.raises(BenchError, match=r"tiny cannot be pruned\. Post-training .*: failed: layer x is dense$"):
        Script(cliff(), fails=("post-training",)).walk(max_drop=1)


def test_a_drop_that_so_few_images_cannot_show():
    """The upper end of the interval with no image changed is z^2 / (n + z^2)."""
    with pytest.raises(BenchError, match=r"--max-drop 0\.2: on 200 images .* it takes 354"):
        Script(cliff()).walk(max_drop=0.2)
    Script(cliff()).walk(max_drop=0.36)
    with pytest.raises(BenchError, match=r"not even equal answers on all of them show that$"):
        Script(cliff()).walk(max_drop=0)


def test_work_that_needs_more_than_is_left_is_told_and_what_comes_after_is_tried():
    script = Script(cliff(post_training=0.3, magnitude_pruner=0.9))
    measure = script.measure

    def endless(cell):
        if cell.config and cell.config.algorithm == "blockwise-reconstruction":
            raise OutOfTimeError("pruning: 2:00:00 more needed, 0:10:00 left")
        return measure(cell)

    script.measure = endless
    advice = script.walk(max_drop=1)
    assert advice.tried[advice.chosen].algorithm == "magnitude-pruner"
    assert any(line.startswith("Blockwise reconstruction, no time for more: pruning: 2:00:00") for line in script.said)


def test_a_budget_in_which_nothing_can_be_tried():
    with pytest.raises(BenchError, match="the budget is too small: to judge a choice takes 0:00:0"):
        Script(cliff()).walk(budget=Budget(1), max_drop=1)
