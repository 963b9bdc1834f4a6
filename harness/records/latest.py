"""Which records of a results folder count: of each row, the newest state. Older ones stay on disk and are left out."""

from collections.abc import Iterable

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.records.accuracy import GIVEN, Record

_SHOWN = 8

_DataSet = tuple[str, str]
"""A machine and a place on it, or nothing and a spelling."""


def newest_trials(records: Iterable[Record]) -> list[list[Record]]:
    """The records that stand for each row, by trial: of the newest weights, images and version of the config.

    The rows stand in the order of their suite, or as they came, the oldest first.

    Records of other weights or other images must not stand beside each other: those of one network in one suite, of
    which a run measures all again. Packages that nobody built here have no weights in common and are measured one at a
    time, so that each row is for itself, and a package of the same name is what replaces it. Whether images are of one
    data set tells their folder, not how it is spelled. Of two with one trial's number, which are one trial measured
    twice or copied, the newer one stands, a failed one for none that was measured.
    Raises BenchError where trials that skipped the same images predicted different numbers of them.
    """
    current, _ = _by_age(records)
    configs = {_row(r): r.config_key for r, _ in current}
    rows: dict[tuple[str, ...], dict[int, Record]] = {}
    for record, _ in current:
        row = _row(record)
        if record.config_key == configs[row]:
            trials = rows.setdefault(row, {})
            before = trials.get(record.trial)
            if before is None or before.status == "failed" or record.status == "measured":
                trials[record.trial] = record
    found = [[trials[number] for number in sorted(trials)] for trials in rows.values()]
    for one in found:
        _check_images(one)
    return _in_order(found)


def left_out(records: Iterable[Record]) -> list[str]:
    """A line for each network of a suite of which rows are nowhere to be seen: of older weights or images alone."""
    current, older = _by_age(records)
    there = {(*of, _row(record)[2:]) for record, of in current}
    found: dict[tuple[str, str], dict[str, None]] = {}
    for record, of in older:
        if (*of, _row(record)[2:]) not in there:
            name = f"{record.pruning.title}, {record.config} on {record.data.spec}"
            found.setdefault((record.network.name, record.suite), {})[name] = None
    return [_told(network, suite, list(rows)) for (network, suite), rows in found.items()]


def _told(network: str, suite: str, rows: list[str]) -> str:
    more = f"; and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    many = f"{len(rows)} rows of {network} are" if len(rows) > 1 else f"a row of {network} is"
    return (
        f"suite {suite}: {many} left out, for newer rows are of other weights, images or preprocessing: "
        f"{'; '.join(rows[:_SHOWN])}{more}; `run` measures again what the suite still has"
    )


_Aged = list[tuple[Record, tuple[str, str, _DataSet]]]
"""Records, the oldest first, each with its suite, network and data set."""


def _by_age(records: Iterable[Record]) -> tuple[_Aged, _Aged]:
    """Those of the newest weights and images of what must have them in common, and the others."""
    ordered, data = _by_data_set(sorted(records, key=lambda record: record.provenance.created))
    aged: _Aged = [(r, (r.suite, r.network.name, of)) for r, of in zip(ordered, data, strict=True)]
    newest = {(of, _alone(record)): record.subject_key for record, of in aged}
    current = [(record, of) for record, of in aged if newest[of, _alone(record)] == record.subject_key]
    return current, [(record, of) for record, of in aged if newest[of, _alone(record)] != record.subject_key]


def _alone(record: Record) -> str | None:
    """The name of a row that has nothing in common with others."""
    return record.config if record.network.weights == GIVEN else None


def _row(record: Record) -> tuple[str, ...]:
    """What records of one row have in common; of a package that nobody built here, its name, whatever is in it."""
    algorithm = GIVEN if record.network.weights == GIVEN else record.pruning.algorithm
    return record.subject_key, record.suite, algorithm, record.config


def _in_order(rows: list[list[Record]]) -> list[list[Record]]:
    """Those of each suite in its order, whichever was measured anew; suites stand among each other as they came."""
    by_suite: dict[str, list[list[Record]]] = {}
    for trials in rows:
        by_suite.setdefault(trials[0].suite, []).append(trials)
    ordered = {suite: iter(_of_suite_in_order(of_suite)) for suite, of_suite in by_suite.items()}
    return [next(ordered[trials[0].suite]) for trials in rows]


def _of_suite_in_order(rows: list[list[Record]]) -> list[list[Record]]:
    """As they came where the order is not known of all, or where several runs with other rows have made them."""
    places = [place for trials in rows if (place := trials[0].row) is not None]
    if len(set(places)) < len(rows):
        return rows
    return [trials for _, trials in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])]


def _by_data_set(ordered: list[Record]) -> tuple[list[Record], list[_DataSet]]:
    """The records, oldest first, with one spelling for each data set, its newest; and which one each is of.

    Folders are known by their place, on one machine. Between machines, and of records that do not say it (they are of
    before 0.2, or of data in no folder), the spelling tells.
    """
    tokens = [_place(record) or ("", record.data.spec) for record in ordered]
    spelled: dict[str, dict[str, _DataSet]] = {}
    for record, token in zip(ordered, tokens, strict=True):
        spelled.setdefault(record.data.spec, {})[record.provenance.host] = token
    one_of = {token: token for token in (*tokens, *(("", spec) for spec in spelled))}
    for spec, by_host in spelled.items():
        same = {one_of[token] for token in (*by_host.values(), ("", spec))}
        one_of |= {token: ("", spec) for token, representative in one_of.items() if representative in same}
    spelling = {one_of[token]: record.data.spec for record, token in zip(ordered, tokens, strict=True)}
    found = [(record, one_of[token]) for record, token in zip(ordered, tokens, strict=True)]
    return [_spelled(record, spelling[data]) for record, data in found], [data for _, data in found]


def _spelled(record: Record, spec: str) -> Record:
    if record.data.spec == spec:
        return record
    return record.model_copy(update={"data": record.data.model_copy(update={"spec": spec})})


def _place(record: Record) -> _DataSet | None:
    return (record.provenance.host, record.data.place) if record.data.place else None


def _check_images(trials: list[Record]) -> None:
    counts: dict[tuple[str, ...], int] = {}
    for trial in trials:
        if trial.predictions:
            images = len(trial.predictions.labels)
            before = counts.setdefault(trial.data.skipped, images)
            if before != images:
                cell = f"{trial.network.name}, {trial.pruning.algorithm}, {trial.config}"
                raise BenchError(
                    f"{cell}: trial {trial.trial + 1} has predictions of {images:,} images, another one of {before:,}, "
                    "though both skipped the same: `run` measures the wrong one again"
                )


def of_own_suite(row: list[Record], others: list[list[Record]]) -> list[list[Record]]:
    """Those of `others` that have the suite of `row`; all of them where none has.

    What one suite has measured into a folder no other one measures again.
    """
    return [other for other in others if other[0].suite == row[0].suite] or others
