"""Records changed by hand, one value each, and everything that is said of the folder in which such a record lies."""

import json
import math
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.gating.baseline import read_results
from coreml_prune_bench.gating.reports import as_github_summary, as_json, as_junit, as_table
from coreml_prune_bench.gating.verdicts import gate
from coreml_prune_bench.records.accuracy import Record, read_records
from coreml_prune_bench.records.latency import LatencyRecord, read_latency_records
from coreml_prune_bench.report import accuracy_tables, latency_tables
from coreml_prune_bench.report.benchmark_json import to_benchmark_json
from coreml_prune_bench.report.drawn import svg
from coreml_prune_bench.report.page import figure, page
from coreml_prune_bench.report.paired_tables import render_pairs
from coreml_prune_bench.report.results import Results

WRONG: list[Any] = [
    None, "", "x", "a\nb\x1b[31m", [], {}, [[]], [0], [None], {"sparsity": "much", "allocation": "z"}, True,
    -1, 0, 1, 0.5, 10**18, 10**400, -(10**400), math.nan, math.inf, 1e300, "measured", "failed",
]  # fmt: skip
_GONE = object()


def tampered(record: Record | LatencyRecord) -> Iterator[str]:
    """The record's text with each value in turn replaced by each wrong one, and left out."""
    content = json.loads(record.to_json())
    for place in _places(content):
        for wrong in (*WRONG, _GONE):
            changed = deepcopy(content)
            parent = changed
            for step in place[:-1]:
                parent = parent[step]
            if wrong is _GONE:
                del parent[place[-1]]
            else:
                parent[place[-1]] = wrong
            yield json.dumps(changed)


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else list(enumerate(value))[:2] if isinstance(value, list) else ()
    for step, one in inside:
        yield (*above, step)
        yield from _places(one, (*above, step))


def tell_everything(results: Path, good: Path, *, draw: bool) -> list[str]:
    """Every table, page, frame and gate of a folder; returns what was warned of or refused, each in a line.

    draw: charts too, which take half a second.
    """
    said: list[str] = []
    records = _attempt(said, lambda: read_records(results, said.append)) or []
    latencies = _attempt(said, lambda: read_latency_records(results, said.append)) or []
    if said:  # the others are as they were
        return said
    for form in ("md", "csv", "json", "latex"):
        for kind in ("accuracy", "size"):
            _attempt(said, lambda kind=kind, form=form: accuracy_tables.render(records, kind, form))
        _attempt(said, lambda form=form: accuracy_tables.render_comparison(records, form))
        _attempt(said, lambda form=form: render_pairs(records, "dense", form))
        _attempt(said, lambda form=form: latency_tables.render(latencies, form, published=True))
        _attempt(said, lambda form=form: [latency_tables.render_operations(one, form) for one in latencies])
    with patch("coreml_prune_bench.report.page.can_draw", lambda: draw):
        _attempt(said, lambda: page(records, latencies, shipped_suites=()))
    if draw:
        _attempt(said, lambda: svg(figure(records, latencies)))
    for level in ("row", "trial", "image"):
        _attempt(said, lambda level=level: Results(tuple(records)).latest().to_frame(level))
    if any(one.status == "measured" for one in latencies):
        _attempt(said, lambda: to_benchmark_json(latencies))
    for against_dense in (False, True):
        report = _attempt(
            said, lambda dense=against_dense: gate(read_results(good), read_results(results), against_dense=dense)
        )
        for tell in (as_table, as_json, as_junit, as_github_summary) if report else ():
            tell(report)
    return said


def _attempt(said: list[str], step: Any) -> Any:
    try:
        return step()
    except BenchError as error:
        said.append(str(error))
        return None
