"""`advise`: the images it divides, the time it keeps, its decisions on scripted networks, and one real walk."""

import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from coremltools.optimize.coreml import OptimizationConfig
from coremltools.optimize.torch.layerwise_compression import LayerwiseCompressorConfig
from coremltools.optimize.torch.pruning import MagnitudePrunerConfig as OwnPrunerConfig

import coreml_prune_bench.advise.budget
import coreml_prune_bench.cli.advise
from coreml_prune_bench.advise.advice import Goal, difference, is_on_front
from coreml_prune_bench.advise.budget import Budget, OutOfTimeError, read_duration
from coreml_prune_bench.advise.search import Search
from coreml_prune_bench.bench.cells import Subject
from coreml_prune_bench.core.errors import BenchError, DataError
from coreml_prune_bench.data import open_data
from coreml_prune_bench.data.halves import PARTS, open_data_or_part, part_of
from coreml_prune_bench.models.config import TrainingConfig
from coreml_prune_bench.models.pruning.blockwise_reconstruction.config import ReconstructionConfig
from coreml_prune_bench.models.pruning.coremltools_yaml import coremltools_yaml
from coreml_prune_bench.models.pruning.magnitude_pruner.config import MagnitudePrunerConfig
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from coreml_prune_bench.models.pruning.task import fitted_to, layer_sparsities
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.records.latency import write_latency_record
from tests.gate.samples import accuracy_record, failed_record
from tests.latency.samples import latency_record
from tests.tiny_network import TINY

# --- images to choose by, and images that judge


@pytest.mark.parametrize("with_train", [True, False])
def test_the_parts_and_the_training_images_have_no_image_in_common(with_train):
    whole = open_data("digits")
    if not with_train:
        whole = replace(whole, open_train=None)
    selection, final = (part_of(whole, part) for part in PARTS)
    splits = [selection.val, final.val, selection.train]
    assert selection.train.ids == final.train.ids
    ids = [name for split in splits for name in split.ids]
    assert len(ids) == len(set(ids))
    assert [len(split) for split in splits] == ([200, 200, 1397] if with_train else [133, 134, 133])


def test_a_part_has_the_images_and_labels_of_the_whole():
    whole, part = open_data("digits").val, open_data_or_part("digits#final").val
    for place in (0, 99, 199):
        there = whole.ids.index(part.ids[place])
        assert part.labels[place] == whole.labels[there]
        assert np.array_equal(part.image(place), whole.image(there))
    assert part.fingerprint != open_data_or_part("digits#selection").val.fingerprint
    assert part.fingerprint == open_data_or_part("digits#final").val.fingerprint


def test_a_data_set_of_one_image_has_no_parts(tmp_path, images):
    for file in list((images / "val").rglob("*.jpg"))[1:]:
        file.unlink()
    with pytest.raises(DataError, match="1 images cannot be divided"):
        open_data_or_part(f"imagefolder:{images}#final")


# --- time


@pytest.fixture
def clock(monkeypatch):
    """The time, which passes only where a test says so."""
    now = [100.0]
    monkeypatch.setattr(coreml_prune_bench.advise.budget.time, "monotonic", lambda: now[0])
    return now


def test_work_ends_when_the_time_is_up_or_its_pace_says_it_will_be(clock):
    budget = Budget(100)
    for step in range(10):
        clock[0] += 4
        budget.watch("a", step, 20)  # 80 s in all
    for step in range(3):
        clock[0] += 4
        budget.watch("b", step, 20)
    clock[0] += 4
    with pytest.raises(OutOfTimeError, match="b: 0:01:08 more needed, 0:00:44 left"):
        budget.watch("b", 3, 20)
    clock[0] += 60
    with pytest.raises(OutOfTimeError, match="c: the time is up"):
        budget.watch("c", 0, 20)
    budget.lift()
    budget.watch("c", 1, 20)


def test_phases_that_share_a_name_have_each_their_pace(clock):
    budget = Budget(1000)
    for step in range(700):
        clock[0] += 0.5
        budget.watch("pruning", step, 700)
    for step in range(4000):
        clock[0] += 0.01
        budget.watch("pruning", step, 4000)
    for _ in range(2):  # the same work on other images
        for step in range(40):
            clock[0] += 5
            budget.watch("evaluating", step, 40)


def test_resumed_work_is_judged_by_what_it_does_now(clock):
    budget = Budget(100)
    for step in range(90, 100):
        budget.watch("a", step, 100)
        clock[0] += 9


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400)])
def test_a_time_is_a_number_with_a_unit(text, seconds):
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-3m", "0s", "3 days"])
def test_what_is_no_time(text):
    with pytest.raises(BenchError, match="is no time: expected a number with s, m or h"):
        read_duration(text)


# --- decisions

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


# --- Core ML Tools' own files

TRAINING = TrainingConfig(epochs=2)
CONFIGS = {
    "unstructured": (PostTrainingConfig(sparsity=0.5), OptimizationConfig),
    "threshold": (PostTrainingConfig(threshold=0.1), OptimizationConfig),
    "n:m": (PostTrainingConfig(n_m_ratio=(2, 4), layers={"features.0": 0}), OptimizationConfig),
    "blocks": (PostTrainingConfig(sparsity=0.5, block_size=2), OptimizationConfig),
    "sparse-gpt": (SparseGPTConfig(sparsity=0.5, layers={"classifier": 0.75}), LayerwiseCompressorConfig),
    "reconstruction": (ReconstructionConfig(sparsity=0.5), LayerwiseCompressorConfig),
    "zeros by magnitude": (ReconstructionConfig(sparsity=0.5, zeros="magnitude"), OptimizationConfig),
    "magnitude": (
        MagnitudePrunerConfig(n_m_ratio=(1, 4), layers={"features.0": 0}, training=TRAINING),
        OwnPrunerConfig,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("form", [{}, {"quantize_bits": 8}, {"palettize_bits": 4}])
def test_core_ml_tools_reads_the_files(tmp_path, name, form):
    config, reader = CONFIGS[name]
    config = config.model_copy(update=form)
    targets = layer_sparsities(config, TINY, untrained_model(TINY, 10))
    files = coremltools_yaml(config, targets, 640)
    assert set(files) == ({"pruning.yaml", "storage.yaml"} if form else {"pruning.yaml"})
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    own = reader.from_yaml(str(tmp_path / "pruning.yaml"))
    by_layer = own.op_name_configs if reader is OptimizationConfig else own.module_name_configs
    assert len(by_layer) == len(targets)
    if form:
        stored = OptimizationConfig.from_yaml(str(tmp_path / "storage.yaml"))
        assert len(stored.op_name_configs) == len(targets)


def test_what_cannot_take_a_pattern_is_left_dense():
    network = get_network("mobilenet_v2")
    config = fitted_to(PostTrainingConfig(n_m_ratio=(2, 4)), network, untrained_model(network, 10))
    assert config.layers == (("features.0.0", 0.0),)


# --- the command


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        'description = "d"\nmodels = ["tiny"]\nweights = "none"\n[training]\nepochs = 3\n'
        '[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\n'
    )
    return path


def test_a_walk_from_the_command_line(run_bench, suite, tmp_path):
    results = tmp_path / "results"
    command = ("advise", "tiny", "--data", "digits", "--suite", suite, "--max-drop", 5, "--results", results)
    code, output, errors = run_bench(*command, "--min-ratio", 2.2, "--budget", "1h", "--json")
    assert code == 0, errors
    advice = json.loads(output)
    assert advice["tried"][advice["chosen"]]["ratio"] >= 2.2
    folder = results / "advice" / "tiny"
    assert json.loads((folder / "advice.json").read_text()) == advice
    assert (folder / "tiny.mlpackage").is_dir()
    (folder / "notes.txt").write_text("mine")

    # A second walk measures nothing, and prints the same.
    records = {path.name: path.stat().st_mtime_ns for path in (results / "records").iterdir()}
    again = run_bench(*command, "--min-ratio", 2.2, "--json")
    assert again[1] == output
    assert {path.name: path.stat().st_mtime_ns for path in (results / "records").iterdir()} == records

    # Images to choose by and to judge are other ones, and everything is an ordinary record.
    data = {record.data.spec: record.data for record in read_records(results)}
    assert set(data) == {"digits#selection", "digits#final"}
    assert len({one.fingerprint for one in data.values()}) == 2

    # The suite that was written makes the same cells.
    written = tomllib.loads((folder / "advise.toml").read_text())
    assert (len(written["configs"]), written["image_size"]) == (len(advice["tried"]), 32)
    code, _, errors = run_bench("run", "--suite", folder / "advise.toml", "--results", results)
    assert (code, f"0 of {len(advice['tried']) + 1} cells measured now" in errors) == (0, True)

    # The config as Core ML Tools' YAML, in a suite, prunes the same layers as much.
    yaml_file = folder / "pruning.yaml"
    sparsities = {layer["name"]: layer["sparsity"] for layer in _layers(results, advice)}
    wanted = yaml.safe_load(yaml_file.read_text())
    assert len(wanted.get("module_name_configs") or wanted["op_name_configs"]) == len(sparsities)

    code, output, errors = run_bench(*command, "--min-ratio", 50)
    assert code == 1, errors
    assert "No package is 50 times smaller" in output
    assert (folder / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["advice.json", "advise.toml", "notes.txt"]


def _layers(results, advice):
    chosen = advice["tried"][advice["chosen"]]
    (record,) = [one for one in read_records(results) if one.key == chosen["record"]]
    return [layer.model_dump() for layer in record.package.layers]


def test_latencies_are_a_macs_and_of_one_device(tmp_path):
    for number, (name, device) in enumerate((("coreml", "old"), ("coreml", "new"), ("portable", "new"))):
        record = latency_record(
            [[2_000_000] * 30] * 3,
            created=f"2026-01-0{number + 1}",
            device={"name": device},
            runtime={"name": name},
        )
        package = record.package.model_copy(update={"sha256": f"{name} {device}"})
        write_latency_record(tmp_path, record.model_copy(update={"package": package, "key": f"{number}" * 16}))
    assert coreml_prune_bench.cli.advise._latencies(tmp_path) == {"coreml new": 2.0}
    assert coreml_prune_bench.cli.advise._latencies(tmp_path / "none") == {}


def test_what_is_asked_for_wrongly_is_told_in_one_line(refused, suite, tmp_path):
    command = ("advise", "tiny", "--suite", suite, "--results", tmp_path / "results")
    assert "is no time" in refused(*command, "--data", "digits", "--budget", "soon")
    assert "the budget is too small" in refused(*command, "--data", "digits", "--budget", "0.1s")
    assert "--suite published measures packages" in refused(
        "advise", "tiny", "--suite", "published", "--data", "digits"
    )
    weights = tmp_path / "weights"
    weights.mkdir()
    torch.save(untrained_model(TINY, 3).state_dict(), weights / "tiny.pth")
    pretrained = ("advise", "tiny", "--data", "digits", "--weights", weights)
    assert "digits has 10 classes, the weights of tiny 3; name a suite with a [training] table" in refused(*pretrained)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    assert "holds something else" in refused(*command, "--data", "digits", "--out", tmp_path / "full")
    inside = tmp_path / "full" / "thesis.txt" / "out"
    assert "thesis.txt is a file, expected a folder" in refused(*command, "--data", "digits", "--out", inside)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "x"
