"""The gate's verdicts: which rows are compared, what is said of them and why."""

import numpy as np
import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.gating.baseline import from_records, read_results
from coreml_prune_bench.gating.limits import Rules, RuleSet, read_rules
from coreml_prune_bench.gating.verdicts import gate
from coreml_prune_bench.records.latency import write_latency_record
from coreml_prune_bench.records.parity import ParityRecord, write_parity_record
from coreml_prune_bench.records.statistics import mcnemar, score_interval, smallest_p
from tests.factories import accuracy_record, failed_record, latency_record, noisy_rounds
from tests.gating.samples import bits


def of(*records):
    """A baseline, or a run, of accuracy and latency records."""
    latency = [record for record in records if hasattr(record, "rounds")]
    return from_records([record for record in records if record not in latency], latency)


def sides(lost=0, gained=0, images=1000, **changes):
    before, after = bits(lost, gained, images)
    return of(accuracy_record(before)), of(accuracy_record(after, created="2026-01-02", **changes))


def only_row(report):
    (row,) = report.rows
    return row


def check(report, metric="accuracy"):
    (found,) = (one for one in only_row(report).checks if one.metric == metric)
    return found


def rules(**changes) -> RuleSet:
    return RuleSet(Rules.model_validate(changes))


# --- accuracy


def test_a_loss_is_worse_with_its_size_interval_and_p():
    found = check(gate(*sides(lost=30, gained=5)))
    assert found.verdict == "worse"
    assert (found.baseline, found.run, found.effect) == pytest.approx((80, 77.5, -2.5))
    assert (found.low, found.high) == pytest.approx(tuple(100 * end for end in score_interval(30, 5, 1000, 0.05)))
    assert found.p == pytest.approx(mcnemar(30, 5))
    assert 1 < found.detectable < 2
    assert found.method == "exact McNemar"


@pytest.mark.parametrize(
    ("lost", "gained", "images", "verdict"),
    [
        (5, 30, 1000, "better"),
        (0, 0, 1000, "same"),
        (2, 3, 1000, "same"),
        (20, 20, 1000, "cannot tell"),  # the interval of the difference is wider than a point on either side
        (0, 0, 100, "cannot tell"),  # nothing changed, but 100 images cannot exclude a loss of a point
        (5, 0, 1000, "worse"),  # 1 / 32
        (4, 0, 1000, "same"),  # 1 / 16, and its interval reaches to -0.92 points
        (4, 0, 500, "cannot tell"),
    ],
)
def test_other_verdicts(lost, gained, images, verdict):
    report = gate(*sides(lost, gained, images))
    assert check(report).verdict == only_row(report).verdict == verdict
    assert report.exit_code == (verdict == "worse")


def test_an_allowed_loss_has_to_be_exceeded_significantly():
    pair = sides(lost=35, gained=5)
    allowed = [check(gate(*pair, rules(accuracy={"allowed_loss": loss}))).verdict for loss in (0, 1.5, 2.5, 5)]
    assert allowed == ["worse", "worse", "cannot tell", "same"]


def test_the_same_package_is_the_same_however_few_images_there_are():
    record = accuracy_record(bits(images=20)[0])
    report = gate(of(record), of(record))
    assert (check(report).verdict, check(report).p, report.tests) == ("same", 1, 0)
    other_predictions = accuracy_record(bits(lost=8, images=20)[1])  # say, of another version of the runtime
    assert check(gate(of(record), of(other_predictions))).verdict == "worse"


def test_trials_are_judged_by_their_spread():
    def trials(*right, created="2026-01-01"):
        records = [accuracy_record(np.arange(1000) < n, trial=t, created=created) for t, n in enumerate(right)]
        return of(*records)

    found = check(gate(trials(800, 780, 820), trials(785, 765, 800, created="2026-01-02")))
    assert found.verdict == "cannot tell"
    assert found.effect == pytest.approx(80 - 80 - (800 - 2350 / 3) / 10)
    assert found.low < -4
    assert "3 and 3" in found.method
    assert check(gate(trials(800, 801, 802), trials(700, 701, 702, created="2026-01-02"))).verdict == "worse"


def test_p_values_are_corrected_for_the_number_of_rows():
    before, after = bits(lost=6)  # 1 / 64
    unchanged = bits(lost=1, gained=1)[1]

    def run(rows):
        old = [accuracy_record(before, model=f"m{n}") for n in range(rows)]
        new = [accuracy_record(unchanged, model=f"m{n}", created="2026-01-02") for n in range(1, rows)]
        return gate(of(*old), of(accuracy_record(after, model="m0", created="2026-01-02"), *new))

    assert run(3).rows[0].verdict == "worse"
    assert run(3).rows[0].checks[0].p == pytest.approx(3 / 64)
    assert run(4).rows[0].verdict == "cannot tell"  # 4 / 64 is more than 0.05
    assert run(4).tests == 4
    assert run(4).rows[0].checks[0].detectable > run(3).rows[0].checks[0].detectable


# --- size and sparsity


@pytest.mark.parametrize(
    ("changes", "metric", "verdict"),
    [
        ({"weight_bytes": 505}, "size", "same"),
        ({"weight_bytes": 506}, "size", "worse"),
        ({"weight_bytes": 400}, "size", "better"),
        ({"sparsity": 0.4951}, "sparsity", "same"),
        ({"sparsity": 0.494}, "sparsity", "worse"),
        ({"sparsity": 0.6}, "sparsity", "better"),
    ],
)
def test_size_and_sparsity_are_compared_with_what_is_allowed(changes, metric, verdict):
    report = gate(*sides(**changes))
    assert check(report, metric).verdict == verdict
    assert only_row(report).verdict == verdict
    assert check(report, metric).p is None


def test_the_worst_check_is_the_rows_verdict():
    report = gate(*sides(lost=30, weight_bytes=100))
    assert {one.verdict for one in only_row(report).checks} == {"worse", "better", "same"}
    assert only_row(report).verdict == "worse"


def test_only_what_the_rules_check_is_compared():
    pair = sides(lost=30, weight_bytes=900)
    assert [one.metric for one in only_row(gate(*pair, rules(checks=["sparsity"]))).checks] == ["sparsity"]
    with pytest.raises(BenchError, match="nothing to compare"):
        gate(*pair, rules(checks=["latency"]))


# --- latency


def latencies(ratio=1.0, *, rounds=10, **changes):
    old = latency_record(noisy_rounds(2e6, rounds=rounds, seed=1))
    new = latency_record(noisy_rounds(2e6 * ratio, rounds=rounds, seed=2), created="2026-01-02", **changes)
    return of(old), of(new)


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.0, "same"), (1.1, "worse"), (0.9, "better"), (1.05, "cannot tell"), (1.03, "same")]
)
def test_latency_is_judged_by_round_medians(ratio, verdict):
    found = check(gate(*latencies(ratio)), "latency")
    assert found.verdict == verdict
    assert found.effect == pytest.approx(100 * (ratio - 1), abs=1.5)
    assert found.low < found.effect < found.high
    assert 5 < found.detectable < 8
    assert found.baseline == pytest.approx(2, rel=0.02)


def test_too_few_rounds_cannot_tell_and_say_how_many_it_takes():
    found = check(gate(*latencies(2.0, rounds=2)), "latency")
    assert (found.verdict, found.detectable) == ("cannot tell", None)
    assert found.p == smallest_p(2, 2)
    assert found.note == ("too few rounds: 2 and 2 give no p below 0.17, and 1 tests need 0.05; 3 a side would do")
    assert check(gate(*latencies(2.0, rounds=3)), "latency").verdict == "worse"


def test_time_around_the_call_is_compared_where_a_side_has_no_other():
    old, new = latencies(model_time=False)
    assert check(gate(old, new), "latency").run == pytest.approx(2.001, rel=0.02)
    rounds = [[2_000_000 + n] * 3 for n in range(5)]
    with_model, without = (of(latency_record(rounds, model_time=told)) for told in (True, False))
    assert check(gate(with_model, without), "latency").effect == 0


def test_planned_neural_engine_share_and_load_time():
    pair = latencies(planned={"neural_engine": 8, "cpu": 2}, cached_load_ns=4_600_000)
    assert [one.metric for one in only_row(gate(*pair)).checks] == ["latency"]  # the baseline has no plan
    old = of(latency_record(noisy_rounds(2e6, seed=1), planned={"neural_engine": 9, "cpu": 1}))
    report = gate(old, pair[1], rules(checks=["neural_engine", "load"]))
    assert check(report, "neural_engine").verdict == "worse"
    assert check(report, "neural_engine").effect == pytest.approx(-10)
    assert (check(report, "load").verdict, check(report, "load").effect) == ("worse", pytest.approx(100 * 1.6 / 3))


def besides(wake_ms: float, mj: float, peak: int):
    """A latency record with what is measured besides."""
    wake = [{"idle_s": 30.0, "call_ns": [round(wake_ms * 1e6)] * 3, "model_ns": None}]
    window = {"idle_s": 2.0, "idle_mj": {"cpu": 400.0}, "predicting_s": 2.0, "predictions": 100}
    energy = [window | {"predicting_mj": {"cpu": 400.0 + 100 * mj}}] * 2
    memory = {"load_peak_bytes": peak, "predict_peak_bytes": peak}
    return latency_record(noisy_rounds(2e6, seed=1), wake=wake, energy=energy, memory=memory)


def test_what_is_measured_besides_is_compared_where_the_rules_name_it():
    old, new = (of(besides(*values)) for values in ((100, 4.0, 50 << 20), (130, 4.2, 56 << 20)))
    assert [one.metric for one in only_row(gate(old, new)).checks] == ["latency"]
    report = gate(old, new, rules(checks=["wake", "energy", "memory"]))
    found = {name: (check(report, name).verdict, check(report, name).effect) for name in ("wake", "energy", "memory")}
    assert found == {
        "wake": ("worse", pytest.approx(30)),
        "energy": ("same", pytest.approx(5)),
        "memory": ("worse", pytest.approx(12)),
    }


def test_a_unit_that_computes_something_else_is_worse(tmp_path):
    """Of the parity records of a results folder: images off on the same compute units, of the same package."""
    folders = tmp_path / "old", tmp_path / "new"
    for folder, errors in zip(folders, ([0.1] * 20, [0.1] * 14 + [1.0] * 6), strict=True):
        record = latency_record(noisy_rounds(2e6, seed=1))
        write_latency_record(folder, record)
        parity = ParityRecord(
            package="m.mlpackage", sha256=record.package.sha256, data="d", fingerprint="f", device=record.device,
            runtimes=(record.runtime, record.runtime.model_copy(update={"name": "portable"})),
            provenance=record.provenance, labels=(0,) * 20, top1=((0,) * 20,) * 2, largest_error=tuple(errors),
            score_range=(1.0,) * 20, rounding_error=(0.1,) * 20,
        )  # fmt: skip
        write_parity_record(folder, parity)
    old, new = map(read_results, folders)
    report = gate(old, new)
    assert (check(report, "units").verdict, check(report, "units").effect) == ("worse", pytest.approx(30))
    assert report.exit_code == 1
    # What another device computes is not this one's, and few images say less than many.
    phone = parity.model_copy(update={"device": parity.device.model_copy(update={"name": "phone"})})
    few = parity.model_copy(update={"labels": (0,), "largest_error": (9.0,), "rounding_error": (0.1,)})
    write_parity_record(folders[1], phone.model_copy(update={"largest_error": (9.0,) * 20}))
    write_parity_record(folders[1], few)
    (folders[1] / "parity" / "broken.json").write_text("{")
    assert read_results(folders[1]) == new
    assert "off_share" not in of(latency_record(noisy_rounds(2e6, seed=1))).to_json()


# --- rows that are not compared


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"fingerprint": "e" * 64}}, "data set: imagefolder:x (ffffffff) -> imagefolder:x (eeeeeeee)"),
        ({"data": {"skipped": ["a.jpg"]}}, "skipped images: none -> a.jpg"),
        ({"runtime": {"name": "coreml"}}, "runtime: portable -> coreml"),
        ({"runtime": {"precision": "float16"}}, "precision: float32 -> float16"),
    ],
)
def test_accuracies_of_other_conditions_are_not_comparable_and_say_why(changes, told):
    report = gate(*sides(lost=30, **changes))
    assert (only_row(report).verdict, only_row(report).reason, report.exit_code) == ("not comparable", told, 2)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"device": {"name": "Mac16,1", "chip": "Apple M4"}}, "device: Mac14,3, Apple M2 -> Mac16,1, Apple M4"),
        ({"device": {"os_version": "15.2"}}, "os: macOS 15.1 -> macOS 15.2"),
        ({"runtime": {"version": "9.1"}}, "runtime: coreml 9.0 -> coreml 9.1"),
        ({"protocol": {"batch_size": 8}}, "protocol: "),
        ({"low_power": True}, "low-power mode: off -> on"),
        ({"thermal": "serious"}, "thermal state: nominal -> serious"),
    ],
)
def test_latencies_of_other_conditions_are_not_comparable_unless_the_rules_say_so(changes, name):
    pair = latencies(1.5, **changes)
    assert only_row(gate(*pair)).verdict == "not comparable"
    assert only_row(gate(*pair)).reason.startswith(name)
    across = gate(*pair, rules(across=[name.split(":")[0]]))
    assert only_row(across).verdict == "worse"


@pytest.mark.parametrize("changes", [{"low_power": None}, {"thermal": None}, {"thermal": "fair"}])
def test_a_state_that_is_unknown_or_does_not_matter_hinders_nothing(changes):
    assert only_row(gate(*latencies(1.0, **changes))).verdict == "same"


def test_more_rounds_are_no_other_protocol():
    old, new = of(latency_record(noisy_rounds(2e6, rounds=8))), of(latency_record(noisy_rounds(2e6, rounds=12)))
    assert only_row(gate(old, new)).verdict == "same"


def test_a_newer_version_of_the_runtime_leaves_accuracies_comparable():
    assert only_row(gate(*sides(lost=30, runtime={"version": "next"}))).verdict == "worse"


def test_missing_new_and_failed_rows():
    record = accuracy_record(bits()[0])
    dense = accuracy_record(bits()[0], algorithm="dense")
    report = gate(of(record), of(dense))
    assert [(row.key.algorithm, row.verdict, row.fails) for row in report.rows] == [
        ("sparse-gpt", "missing", True),  # what fails comes first
        ("dense", "new", False),
    ]
    assert report.exit_code == 1
    assert gate(of(record), of(dense), rules(fail=["worse"])).exit_code == 0
    failed = gate(of(record, dense), of(dense, failed_record())).rows[0]
    assert (failed.verdict, failed.reason) == ("missing", "failed in the run: layer x is dense")


def test_a_cell_that_failed_is_never_passed_over():
    """Nor where nothing of the baseline is missing with it."""
    before = of(accuracy_record(bits()[0], algorithm="dense"), accuracy_record(bits()[0]))
    run = of(accuracy_record(bits()[0], algorithm="dense"), failed_record())
    told = "failed in the run: layer x is dense"
    for report in (gate(before, run), gate(before, run, against_dense=True)):
        assert [(row.key.algorithm, row.verdict, row.reason) for row in report.rows if row.fails] == [
            ("sparse-gpt", "missing", told)
        ]
    without = of(accuracy_record(bits()[0], algorithm="dense"))
    asked = RuleSet().requiring(["top1 >= 70"])
    assert [(row.verdict, row.fails) for row in gate(without, run).rows] == [("new", False), ("same", False)]
    assert [(row.verdict, row.reason) for row in gate(without, run, asked).rows if row.fails] == [("missing", told)]


def test_trials_that_failed_beside_others_are_missing():
    before = of(*(accuracy_record(bits()[0], trial=trial) for trial in range(3)))
    run = of(accuracy_record(bits()[0]), failed_record(trial=1), failed_record(trial=2))
    row = only_row(gate(before, run))
    assert (row.verdict, row.fails) == ("missing", True)
    assert row.reason == "2 of 3 trials failed in the run: layer x is dense"
    assert {check.metric for check in row.checks} == {"accuracy", "size", "sparsity"}
    assert only_row(gate(None, run, RuleSet().requiring(["top1 >= 70"]))).fails


def test_what_failed_matters_to_rules_about_its_kind_alone():
    slow = latency_record([], status="failed", reason="hung")
    run = of(accuracy_record(bits()[0]), slow)
    assert gate(None, run, RuleSet().requiring(["top1 >= 70"])).exit_code == 0
    report = gate(None, run, RuleSet().requiring(["latency_ms <= 70"]))
    assert [(row.kind, row.verdict) for row in report.rows] == [("latency", "missing")]


def test_of_one_image_and_trials_that_differ_nothing_can_be_told():
    run = of(accuracy_record([True]), accuracy_record([False], trial=1), accuracy_record([True], trial=2))
    assert check(gate(of(accuracy_record([True])), run)).verdict == "cannot tell"
    assert only_row(gate(None, run, RuleSet().requiring(["top1 >= 70"]))).verdict == "cannot tell"


def test_latencies_at_other_image_sizes_are_other_rows():
    def timed(size: int, milliseconds: float, created: str = "2026-01-01"):
        record = latency_record([[int(milliseconds * 1e6)] * 9] * 6, created=created)
        return record.model_copy(
            update={
                "key": f"{size}{created}",
                "package": record.package.model_copy(update={"image_size": size, "classes": 10}),
            }
        )

    before = of(timed(32, 1.0))
    run = of(timed(32, 1.0, "2026-01-02"), timed(224, 9.0, "2026-01-03"))
    found = {row.key.context.rpartition(", ")[2]: row.verdict for row in gate(before, run).rows}
    assert found == {"10 classes at 224 pixels": "new", "10 classes at 32 pixels": "same"}
    # An earlier version saved no sizes: its row is compared as before.
    old = before.model_copy(update={"latency": (before.latency[0].model_copy(update={"image_size": None}),)})
    assert [row.verdict for row in gate(old, of(timed(32, 1.0, "2026-01-02"))).rows] == ["same"]
    (row,) = gate(before, of(timed(224, 9.0))).rows
    assert (row.verdict, row.reason) == ("not comparable", "image size: 32 -> 224")


def test_what_fails_is_a_rule():
    assert gate(*sides(20, 20)).exit_code == 0
    assert gate(*sides(20, 20), rules(fail=["worse", "missing", "cannot tell"])).exit_code == 1
    assert gate(*sides(30), rules(fail=["missing"])).exit_code == 0
    assert gate(*sides(data={"fingerprint": "e" * 64}), rules(fail=["not comparable"])).exit_code == 1


def test_rows_of_one_cell_on_two_data_sets_are_told_apart():
    def on(spec, correct, created):
        data = {"spec": spec, "fingerprint": spec[-1] * 64}
        return accuracy_record(correct, data=data, subject_key=spec, created=created)

    before, after = bits(lost=30)
    old = of(on("imagefolder:a", before, "2026-01-01"), on("imagefolder:b", before, "2026-01-01"))
    new = of(on("imagefolder:a", before, "2026-01-02"), on("imagefolder:b", after, "2026-01-02"))
    report = gate(old, new)
    assert [row.verdict for row in report.rows] == ["worse", "same"]
    assert "data bbbbbbbb" in report.rows[0].key.name
    assert gate(old, of(on("imagefolder:a", before, "2026-01-02"))).counts == {"missing": 1, "same": 1}


def test_compute_units_are_rows_of_their_own():
    old = of(*(latency_record(noisy_rounds(2e6, seed=1), compute_units=units) for units in ("all", "cpu_only")))
    new = of(
        latency_record(noisy_rounds(2e6, seed=2), compute_units="all"),
        latency_record(noisy_rounds(4e6, seed=2), compute_units="cpu_only"),
    )
    assert {row.key.compute_units: row.verdict for row in gate(old, new).rows} == {"all": "same", "cpu_only": "worse"}


def test_against_dense_compares_pruned_rows_with_the_dense_one():
    before, after = bits(lost=30)
    dense = accuracy_record(before, algorithm="dense", weight_bytes=1000)
    run = of(dense, accuracy_record(after), accuracy_record(after, model="other"))
    pruned, other = gate(of(dense), run, against_dense=True).rows
    assert pruned.verdict == "worse"
    assert {one.metric: round(one.effect, 2) for one in pruned.checks} == {"accuracy": -3, "size": -50, "sparsity": 50}
    assert (other.verdict, other.reason) == ("not comparable", "the baseline has no dense row of it")


def test_a_rule_holds_for_the_rows_that_it_names(tmp_path):
    path = tmp_path / "gate.toml"
    path.write_text('[[override]]\nmodel = "a"\naccuracy = {allowed_loss = 10}\n')
    old = of(*(accuracy_record(bits()[0], model=name) for name in "ab"))
    new = of(*(accuracy_record(bits(lost=30)[1], model=name, created="2026-01-02") for name in "ab"))
    assert {row.key.model: row.verdict for row in gate(old, new, read_rules(path)).rows} == {"a": "same", "b": "worse"}
