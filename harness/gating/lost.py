"""Which images and classes a row that got worse has lost: by name where the data set lies here, else by number."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.data.halves import is_here, open_data_or_part
from coreml_prune_bench.gating.checks import ClassChange, Lost, Report, Row
from coreml_prune_bench.gating.pairs import Pair
from coreml_prune_bench.gating.rows import AccuracyRow
from coreml_prune_bench.records.accuracy import Record, read_records


def with_lost(report: Report, pairs: list[Pair], results: Path) -> Report:
    """The report, its rows whose accuracy got worse with what they lost. results: the run's folder."""
    by_key = {pair.key: pair for pair in pairs if pair.kind == "accuracy"}
    worse = [row for row in report.rows if _is_worse(row)]
    if not worse:
        return report
    records = read_records(results, lambda line: None)  # damaged ones were told
    found = {row.key: _lost(by_key[row.key], records) for row in worse}
    return replace(report, rows=tuple(replace(row, lost=found.get(row.key)) for row in report.rows))


def _is_worse(row: Row) -> bool:
    return any(check.metric == "accuracy" and check.verdict == "worse" for check in row.checks)


def _lost(pair: Pair, records: list[Record]) -> Lost | None:
    old, new = pair.baseline, pair.run
    if not isinstance(old, AccuracyRow) or not isinstance(new, AccuracyRow):
        return None
    before, now = old.correct.mean(axis=0), new.correct.mean(axis=0)  # [images], over trials
    lost, gained = before > now, before < now
    hashes = {trial.sha256 for trial in new.trials}
    labels = next(_labels(records, hashes, new), None)
    ids, classes = _names(new, labels)
    names = [ids[place] if ids else f"image {place + 1}" for place in np.flatnonzero(lost)]
    return Lost(tuple(names), int(gained.sum()), class_changes(classes, labels, lost, gained))


def class_changes(
    names: tuple[str, ...] | None, labels: np.ndarray | None, lost: np.ndarray, gained: np.ndarray
) -> tuple[ClassChange, ...]:
    """Those in which an image changed, the greatest loss first. names: of the classes; None: their numbers."""
    if labels is None:
        return ()
    images, minus, plus = (Counter(labels[chosen].tolist()) for chosen in (slice(None), lost, gained))
    changed = [
        ClassChange(names[c] if names else f"class {c}", images[c], minus[c], plus[c]) for c in sorted({*minus, *plus})
    ]
    return tuple(sorted(changed, key=lambda change: (change.gained - change.lost, -change.lost)))


def _labels(records: list[Record], hashes: set[str], row: AccuracyRow) -> Iterator[np.ndarray]:
    for record in records:
        package, predictions = record.package, record.predictions
        same = record.data.fingerprint == row.images.fingerprint and record.data.skipped == row.images.skipped
        if package and predictions and package.sha256 in hashes and same:
            yield np.array(predictions.labels)


def _names(row: AccuracyRow, labels: np.ndarray | None) -> tuple[list[str], tuple[str, ...] | None]:
    """Ids of the images that were evaluated, and the classes; none where the data set is not here, or another one."""
    if labels is None or not is_here(row.images.spec):
        return [], None
    try:
        val = open_data_or_part(row.images.spec).val
    except (BenchError, OSError):
        return [], None
    skipped = set(row.images.skipped)
    kept = [place for place, name in enumerate(val.ids) if name not in skipped]
    if not np.array_equal(val.labels[kept], labels):
        return [], None
    return [val.ids[place] for place in kept], val.classes
