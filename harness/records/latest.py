"""Which records of a results folder count: of each row, the newest state. Older ones stay on disk and are left out."""

from collections.abc import Iterable

from coreml_prune_bench.records.accuracy import Record


def newest_trials(records: Iterable[Record]) -> list[list[Record]]:
    """The records that stand for each row, by trial: of the newest weights, images and version of the config.

    Records of other weights or other images must not stand beside each other.
    """
    ordered = sorted(records, key=lambda record: record.provenance.created)
    subjects = {(r.suite, r.network.name, r.data.spec): r.subject_key for r in ordered}
    current = [r for r in ordered if subjects[r.suite, r.network.name, r.data.spec] == r.subject_key]
    configs = {(r.subject_key, r.suite, r.pruning.algorithm, r.pruning.config): r.config_key for r in current}
    rows: dict[tuple[str, ...], list[Record]] = {}
    for record in current:
        row = (record.subject_key, record.suite, record.pruning.algorithm, record.pruning.config)
        if record.config_key == configs[row]:
            rows.setdefault(row, []).append(record)
    return [sorted(trials, key=lambda record: record.trial) for trials in rows.values()]


def of_own_suite(row: list[Record], others: list[list[Record]]) -> list[list[Record]]:
    """Those of `others` that have the suite of `row`; all of them where none has.

    What one suite has measured into a folder no other one measures again.
    """
    return [other for other in others if other[0].suite == row[0].suite] or others
