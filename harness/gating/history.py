"""A page of the same rows over commits, each held by the gate against the commit before it.

The commits are those that the records of a results folder name, or those that git has of a baseline file or of a folder
of records. It reads records only: no torch, no coremltools, no server.
"""

import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import jinja2
import numpy as np

from coreml_prune_bench.core.errors import BenchError, DamagedFileError
from coreml_prune_bench.core.escaping import printable
from coreml_prune_bench.core.files import refuse_file, write_atomically
from coreml_prune_bench.gating.baseline import DEFAULT_FILE, from_scored, parse_baseline
from coreml_prune_bench.gating.checks import Report, Row
from coreml_prune_bench.gating.limits import Key, Kind, Verdict
from coreml_prune_bench.gating.pairs import matched_rows
from coreml_prune_bench.gating.reports import happened
from coreml_prune_bench.gating.rows import AccuracyRow, Baseline, LatencyRow
from coreml_prune_bench.gating.verdicts import gate
from coreml_prune_bench.models.paths import expanded
from coreml_prune_bench.records.accuracy import Provenance, Record
from coreml_prune_bench.records.folder import on_standard_error, read_folder, refuse_nothing
from coreml_prune_bench.records.hits import Bits, read_scored
from coreml_prune_bench.records.latency import LatencyRecord, latency_files, read_latency_record
from coreml_prune_bench.records.latest import newest_trials

_TEMPLATE = Path(__file__).with_name("history.html.jinja")
_STYLE = Path(__file__).parents[1] / "report"
_WIDTH, _HEIGHT, _PADDING = 260, 44, 7
_LEAST_SPAN = {"accuracy": 1.0, "latency": 0.1}
"""Points of top-1 and ms: what changes less is drawn flat."""
_SHORT = 10
"""Characters of a commit's hash."""

_Scored = tuple[Record, Bits | None]


@dataclass(frozen=True)
class State:
    """The rows as they were at a commit. date: ISO 8601. subject: of its message, where that is known."""

    commit: str
    date: str
    subject: str
    rows: Baseline


@dataclass(frozen=True)
class Point:
    """A row at a commit, counted from the first. value: top-1 in %, or ms; None where it has none. told: in words."""

    place: int
    value: float | None
    verdict: Verdict
    told: str


@dataclass(frozen=True)
class Series:
    """A row over all commits; points: of those at which it was or is missed. since: its verdict at the last commit,
    against the first one that has it, and that in words."""

    kind: Kind
    key: Key
    points: tuple[Point, ...]
    since: Point

    @cached_property
    def measured(self) -> list[tuple[int, float]]:
        return [(point.place, point.value) for point in self.points if point.value is not None]

    @property
    def marked(self) -> list[Point]:
        """Where something happened."""
        return [point for point in self.points if point.verdict != "same"]


def write_history(source: str, out: Path, *, force: bool = False) -> None:
    """Write the page of `source`: a results folder, or REV:PATH of a baseline file or a results folder in git.

    REV may be a range; alone it is that of results/baseline.json. Raises BenchError where there is nothing to show, or
    where `out` cannot be written or, without `force`, is there already.
    """
    refuse_file(out, str(out), replace=force)
    states = read_states(source)
    write_atomically(out, page(states, source).encode())


def page(states: Sequence[State], source: str) -> str:
    """The page, as HTML: what happened, and each row's line."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_TEMPLATE.parent, _STYLE]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    series = series_of(states)
    events = [
        (states[point.place], one, point)
        for one in series
        for point in one.marked
        if point.verdict not in ("cannot tell", "new") or (point.verdict == "new" and point.place)
    ]
    return environment.get_template(_TEMPLATE.name).render(
        source=source,
        states=[(state, state.commit[:_SHORT]) for state in states],
        events=sorted(events, key=lambda event: -event[2].place),
        tables=[
            (title, unit, rows, _LEAST_SPAN[kind])
            for kind, title, unit in (("accuracy", "Accuracy", "top-1, %"), ("latency", "Latency", "ms"))
            if (rows := [one for one in series if one.kind == kind])
        ],
        line=lambda one: _line(one, len(states)),
        place=lambda one, point: _place(one, point, len(states)),
        messages=any(state.subject for state in states),
        width=_WIDTH,
        height=_HEIGHT,
        short=_SHORT,
    )


def series_of(states: Sequence[State]) -> list[Series]:
    """Every row with the gate's verdict at each commit, against the commit before."""
    points: dict[tuple[Kind, Key], list[Point]] = {}
    first: dict[tuple[Kind, Key], AccuracyRow | LatencyRow] = {}
    empty = Baseline(measured="")
    for place, state in enumerate(states):
        before = states[place - 1].rows if place else empty
        values = {(pair.kind, pair.key): pair.run for pair in matched_rows(before, state.rows)}
        for of_row in values:  # in the order of the records, not of the verdicts
            points.setdefault(of_row, [])
        for row in _gated(before, state.rows).rows:
            if (row.kind, row.key) not in values:
                continue  # it failed, and there is nothing to draw
            found = values[row.kind, row.key]
            if found is not None:
                first.setdefault((row.kind, row.key), found)
            told = "first measured" if row.verdict == "new" else happened(row)
            points.setdefault((row.kind, row.key), []).append(
                Point(place, None if found is None else _value(found), row.verdict, told)
            )
    earliest = Baseline(
        measured="",
        accuracy=tuple(row for row in first.values() if isinstance(row, AccuracyRow)),
        latency=tuple(row for row in first.values() if isinstance(row, LatencyRow)),
    )
    since = {(row.kind, row.key): row for row in _gated(earliest, states[-1].rows).rows}
    return [Series(kind, key, tuple(of), _since(since.get((kind, key)), states)) for (kind, key), of in points.items()]


def _since(row: Row | None, states: Sequence[State]) -> Point:
    if row is None:
        return Point(len(states) - 1, None, "missing", "not at the last commit")
    return Point(len(states) - 1, None, row.verdict, happened(row))


def _gated(before: Baseline, now: Baseline) -> Report:
    if not (before.accuracy or before.latency or now.accuracy or now.latency):
        return Report((), 0.05, 0)
    return gate(before, now)


def _value(row: AccuracyRow | LatencyRow) -> float:
    if isinstance(row, AccuracyRow):
        return 100 * row.top1
    return float(np.median([one.model_median_ns or one.call_median_ns for one in row.rounds])) / 1e6


# --- lines


def _line(series: Series, states: int) -> str:
    """The points of an SVG polyline."""
    return " ".join("{:.1f},{:.1f}".format(*_at(series, place, value, states)) for place, value in series.measured)


def _place(series: Series, point: Point, states: int) -> tuple[float, float]:
    """Where a mark stands: on the line, or on its end where the row is not there any more."""
    before = [value for place, value in series.measured if place <= point.place]
    value = point.value if point.value is not None else before[-1] if before else None
    return _at(series, point.place, value, states)


def _at(series: Series, place: int, value: float | None, states: int) -> tuple[float, float]:
    values = [value for _, value in series.measured]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    span = max(high - low, _LEAST_SPAN[series.kind])
    floor = (low + high - span) / 2
    x = _PADDING + place / max(states - 1, 1) * (_WIDTH - 2 * _PADDING)
    share = 0.5 if value is None else (value - floor) / span
    return x, _HEIGHT - _PADDING - share * (_HEIGHT - 2 * _PADDING)


# --- where commits come from


def read_states(source: str) -> list[State]:
    """The commits of `source`, the oldest first, as `write_history` takes it. Raises BenchError where there is none."""
    folder = expanded(source)
    states = list(_of_folder(folder) if folder.is_dir() else _of_git(source))
    if not states:
        raise BenchError(
            f"no history in {source!r}: git has no commit of it; is the path that from the top of the checkout?"
        )
    return states


def _of_folder(folder: Path) -> Iterator[State]:
    """At each commit, the newest state of what was measured up to it."""
    scored = read_folder(folder / "records", read_scored, lambda read: read[0], measured_by="run")
    latency = latency_files(folder)
    expected = f"no records in {folder}: expected a results folder with records/*.json or latency/*.json"
    refuse_nothing([scored, latency], expected, folder)
    scored.tell()
    latency.tell()
    by_commit: dict[str, tuple[list[_Scored], list[LatencyRecord]]] = {}
    for one in scored.contents:
        by_commit.setdefault(_commit_of(one[0].provenance), ([], []))[0].append(one)
    for timed in latency.contents:
        by_commit.setdefault(_commit_of(timed.provenance), ([], []))[1].append(timed)

    def newest(commit: str) -> str:
        of, timings = by_commit[commit]
        return max([r.provenance.created for r, _ in of] + [r.provenance.created for r in timings])

    current: list[_Scored] = []
    timings: list[LatencyRecord] = []
    for commit in sorted(by_commit, key=newest):
        current += by_commit[commit][0]
        timings += by_commit[commit][1]
        count = {record.key for trials in newest_trials(record for record, _ in current) for record in trials}
        current = [one for one in current if one[0].key in count]  # what does not count now never does again
        yield State(commit, newest(commit), "", from_scored(current, timings))


def _commit_of(made: Provenance) -> str:
    return made.git_commit or f"version {made.packages.get('coreml-prune-bench', 'unknown')}"


def _of_git(source: str) -> Iterator[State]:
    """At each commit that changed the path, what it has there: a baseline file, or a folder of records."""
    revision, _, path = source.partition(":")
    path = (path or DEFAULT_FILE.as_posix()).strip("/")
    form = "--format=%H%x00%cI%x00%s"
    log = _git(source, "log", "--reverse", form, "--end-of-options", revision, "--", f":(top){path}").decode(
        errors="replace"
    )
    commits = [line.split("\0") for line in log.splitlines()]
    files = {commit: _files(source, commit, path) for commit, _, _ in commits}
    with tempfile.TemporaryDirectory() as kept:
        contents = _Blobs(source, path, Path(kept))
        contents.read({entry for entries in files.values() for entry in entries.items()})
        for commit, date, subject in commits:
            rows = contents.rows(files[commit].items(), f"{commit[:_SHORT]}:{path}")
            if rows is not None:
                yield State(commit, date, subject, rows)


def _files(source: str, commit: str, path: str) -> dict[str, str]:
    """The blobs of the files at and below a path, by the files' places; links and submodules left out."""
    listed = _git(source, "ls-tree", "-r", "-z", "--full-tree", commit, "--", path).decode(errors="surrogateescape")
    entries = [entry.partition("\t") for entry in listed.split("\0") if entry.startswith("100")]
    return {place: told.split()[2] for told, _, place in entries if place.endswith(".json")}


class _Blobs:
    """Files of many commits, each content read once. folder: where they are put, as records are read from files."""

    def __init__(self, source: str, path: str, folder: Path) -> None:
        self._source, self._path, self._folder = source, path, folder
        self._baselines: dict[str, Baseline] = {}
        self._scored: dict[str, _Scored] = {}
        self._latency: dict[str, LatencyRecord] = {}

    def read(self, entries: Iterable[tuple[str, str]]) -> None:
        """entries: the place and the blob of each. Damaged ones are named on standard error and left out."""
        with subprocess.Popen(["git", "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as git:
            assert git.stdin
            assert git.stdout
            for place, blob in sorted(entries):
                git.stdin.write(f"{blob}\n".encode())
                git.stdin.flush()
                size = int(git.stdout.readline().split()[2])
                content = git.stdout.read(size + 1)[:-1]
                try:
                    self._keep(place, blob, content)
                except DamagedFileError as error:
                    on_standard_error(f"{error}; left out")
            git.stdin.close()

    def _keep(self, place: str, blob: str, content: bytes) -> None:
        if place == self._path:
            self._baselines[blob] = parse_baseline(content, f"{place} ({blob[:_SHORT]})")
            return
        kind = PurePosixPath(place).relative_to(self._path).parent.as_posix()
        if kind in ("records", "latency"):
            file = self._folder / f"{blob}.json"
            file.write_bytes(content)
            if kind == "records":
                self._scored[blob] = read_scored(file)
            else:
                self._latency[blob] = read_latency_record(file)
            file.unlink()

    def rows(self, entries: Iterable[tuple[str, str]], name: str) -> Baseline | None:
        """What a commit has; None where it has removed the path."""
        blobs = [blob for _, blob in entries]
        for blob in blobs:
            if blob in self._baselines:
                return self._baselines[blob]
        scored = [self._scored[blob] for blob in blobs if blob in self._scored]
        latency = [self._latency[blob] for blob in blobs if blob in self._latency]
        if not scored and not latency:
            if blobs:
                on_standard_error(f"{name} is neither a baseline file nor a results folder; left out")
            return None
        return from_scored(scored, latency)


def _git(source: str, *arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error).encode()
        first = next(iter(told.decode(errors="replace").splitlines()), "")
        raise BenchError(f"no history {source!r}: it is no folder, and git says: {first}") from error
