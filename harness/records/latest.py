"""Which records of a results folder count: of each row, the newest state. Older ones stay on disk and are left out."""

from collections.abc import Iterable

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.records.accuracy import Record


def newest_trials(records: Iterable[Record]) -> list[list[Record]]:
    """The records that stand for each row, by trial: of the newest weights, images and version of the config.

    Records of other weights or other images must not stand beside each other. Of two with one trial's number, which
    are one trial measured twice or copied, the newer one stands, a failed one for none that was measured.
    Raises BenchError where trials that skipped the same images predicted different numbers of them.
    """
    ordered = sorted(records, key=lambda record: record.provenance.created)
    subjects = {(r.suite, r.network.name, r.data.spec): r.subject_key for r in ordered}
    current = [r for r in ordered if subjects[r.suite, r.network.name, r.data.spec] == r.subject_key]
    configs = {(r.subject_key, r.suite, r.pruning.algorithm, r.pruning.config): r.config_key for r in current}
    rows: dict[tuple[str, ...], dict[int, Record]] = {}
    for record in current:
        row = (record.subject_key, record.suite, record.pruning.algorithm, record.pruning.config)
        if record.config_key == configs[row]:
            trials = rows.setdefault(row, {})
            before = trials.get(record.trial)
            if before is None or before.status == "failed" or record.status == "measured":
                trials[record.trial] = record
    found = [[trials[number] for number in sorted(trials)] for trials in rows.values()]
    for one in found:
        _check_images(one)
    return found


def _check_images(trials: list[Record]) -> None:
    counts: dict[tuple[str, ...], int] = {}
    for trial in trials:
        if trial.predictions:
            images = len(trial.predictions.labels)
            before = counts.setdefault(trial.data.skipped, images)
            if before != images:
                cell = f"{trial.network.name}, {trial.pruning.algorithm}, {trial.pruning.config}"
                raise BenchError(
                    f"{cell}: trial {trial.trial + 1} has predictions of {images:,} images, another one of {before:,}, "
                    "though both skipped the same: `run` measures the wrong one again"
                )


def of_own_suite(row: list[Record], others: list[list[Record]]) -> list[list[Record]]:
    """Those of `others` that have the suite of `row`; all of them where none has.

    What one suite has measured into a folder no other one measures again.
    """
    return [other for other in others if other[0].suite == row[0].suite] or others
