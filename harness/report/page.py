"""One page that shows what the records of a results folder say: charts, tables, layers, latency, and how each was made.

The page needs no network and no other file. Like tables, it reads records and never models.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jinja2

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.escaping import printable, shell_command, shell_comment, shell_option
from coreml_prune_bench.core.files import refuse_file, write_atomically
from coreml_prune_bench.records.accuracy import GIVEN, Record, read_records
from coreml_prune_bench.records.latency import LatencyRecord, read_latency_records
from coreml_prune_bench.records.latest import newest_trials
from coreml_prune_bench.records.sensitivity import Sensitivity
from coreml_prune_bench.report import charts
from coreml_prune_bench.report.accuracy_tables import COLUMNS, Table, caption, comparison_caption, rows, worded
from coreml_prune_bench.report.charts import Distribution, Drawing, Point
from coreml_prune_bench.report.config_rows import ConfigRow, beside_published, config_rows
from coreml_prune_bench.report.formats import values
from coreml_prune_bench.report.sensitivity import caption as sensitivity_caption
from coreml_prune_bench.report.sensitivity import kept_sensitivities
from coreml_prune_bench.report.sensitivity import panels as sensitivity_panels
from coreml_prune_bench.report.sensitivity import rows as sensitivity_rows

Format = Literal["html", "png", "svg"]

_TEMPLATE = Path(__file__).with_name("page.html.jinja")
_COLUMNS_OF_CHARTS = 2
_SIZES = "Bytes of weight.bin and of the whole package; ratios are of weight.bin, dense over pruned."
_LONGEST_LABEL = 18
_OTHER_PACKAGES = "other packages"


_Values = dict[str, Any]
"""What a row says, by the names of CSV and JSON."""

_Key = tuple[str, str, str, str, str]
"""A row: suite, data, network, algorithm and config."""


@dataclass(frozen=True)
class _Table:
    """A sortable table of the page. made: each row's place among the commands, None where nothing was measured."""

    title: str
    caption: str
    rows: list[dict[str, str]]
    made: list[str | None] = field(default_factory=list)

    @property
    def numeric(self) -> set[str]:
        """The columns of numbers."""
        return {name for name in self.rows[0] if all(_is_number(row[name]) for row in self.rows)}


@dataclass(frozen=True)
class _Layers:
    """Sparsity by layer: one column a config, in %; None where that config leaves the layer dense."""

    title: str
    configs: list[str]
    sparsities: dict[str, list[float | None]]


@dataclass(frozen=True)
class _Made:
    """Rows that the same commands make."""

    id: str
    lines: tuple[str, ...]
    rows: list[str]
    keys: list[_Key]


@dataclass(frozen=True)
class _Charted:
    """Charts and the table of what they show."""

    drawings: list[Drawing]
    table: _Table


def write_report(
    results: Path, out: Path, format: Format, *, shipped_suites: Collection[str], force: bool = False
) -> None:
    """Write the page, or its charts alone, to `out`. shipped_suites: the names of those that need no file.

    Raises BenchError where there are no records, nothing to draw, or `out` cannot be written or, without `force`, is
    there already.
    """
    refuse_file(out, str(out), replace=force)
    records, latencies = read_records(results), read_latency_records(results)
    if format == "html":
        content = page(records, latencies, kept_sensitivities(results), shipped_suites=shipped_suites).encode()
    else:
        drawing = figure(records, latencies)
        content = charts.png(drawing) if format == "png" else charts.svg(drawing, alone=True).encode()
    write_atomically(out, content)


def figure(records: list[Record], latencies: list[LatencyRecord]) -> Drawing:
    """All charts and their legend as one drawing. Raises BenchError where nothing was measured."""
    table = rows(records)
    series = _series(table, latencies)
    drawings = [*_pareto(table, series), *(drawing for one in _latency(latencies, series) for drawing in one.drawings)]
    if not drawings:
        raise BenchError("no row was measured: there is nothing to draw")
    panels = charts.beside(drawings, _COLUMNS_OF_CHARTS)
    return charts.beside([panels, charts.legend(series, panels.width)], 1)


def page(
    records: list[Record],
    latencies: list[LatencyRecord],
    sensitivities: Iterable[Sensitivity] = (),
    *,
    shipped_suites: Collection[str],
) -> str:
    """The page, as HTML."""
    found = config_rows(records)
    table = [values(COLUMNS, row) for row in found]
    trials_of = {_row_key(trials[0]): trials for trials in newest_trials(records)}
    made = _made(trials_of, shipped_suites)
    ids = {key: one.id for one in made for key in one.keys}
    series = _series(table, latencies)
    tables = [_table("Accuracy", caption(found), found, "accuracy", ids), _table("Size", _SIZES, found, "size", ids)]
    if any(row.published for row in found):
        beside = beside_published(found)
        tables.append(_table("Beside the published table", comparison_caption(beside), beside, "comparison", ids))
    newest = max(records, key=lambda record: record.provenance.created).provenance
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # not of what is HTML already
    )
    return environment.get_template(_TEMPLATE.name).render(
        networks=list(dict.fromkeys(row["model_title"] for row in table)),
        newest=newest,
        measured=sum(row["top1_mean"] is not None for row in table),
        portable=any(row["runtime"] == "portable" for row in table),
        series=[
            (number, name, charts.svg(charts.mark(number)), charts.color(number), charts.color(number, on_black=True))
            for number, name in enumerate(series)
        ],
        pareto=[charts.svg(drawing) for drawing in _pareto(table, series)],
        tables=tables,
        layers=_layers(trials_of.values()),
        sensitivity=[(one, list(map(charts.svg, one.drawings))) for one in map(_sensitivity, sensitivities)],
        latency=[(one, list(map(charts.svg, one.drawings))) for one in _latency(latencies, series)],
        made=made,
        failures=[
            (f"{_name(r)}, trial {r.trial + 1}", r.brief_reason)
            for trials in trials_of.values()
            for r in trials
            if r.status == "failed"
        ],
    )


# --- charts


def _series(table: list[_Values], latencies: list[LatencyRecord]) -> list[str]:
    """What marks tell apart: algorithms, by their titles."""
    titles = [row["algorithm_title"] for row in table if row["top1_mean"] is not None]
    return list(dict.fromkeys(map(_told, [*titles, *map(_latency_series, latencies)])))


def _told(title: str) -> str:
    return "not pruned" if title == "n/a" else title


def _pareto(table: list[_Values], series: list[str]) -> list[Drawing]:
    """One chart a network and data set: suites that measured the same stand in the same."""
    measured = [row for row in table if row["top1_mean"] is not None]
    several = len({row["data"] for row in measured}) > len({row["model_title"] for row in measured})
    groups: dict[tuple[str, str], list[_Values]] = {}
    for row in measured:
        groups.setdefault((row["model_title"], row["data"]), []).append(row)
    return [
        charts.scatter(
            f"{model} on {data}" if several else model,
            [_point(row, series) for row in group],
            "weight.bin (MB)",
            "top-1 (%)",
        )
        for (model, data), group in groups.items()
    ]


def _point(row: _Values, series: list[str]) -> Point:
    spread = (
        "" if row["top1_std"] is None else f", standard deviation over {row['trials']} trials {row['top1_std']:.2f}"
    )
    ratio = "" if row["compression_ratio"] is None else f", ratio {row['compression_ratio']:.2f}"
    return Point(
        x=row["weight_bytes"] / 1e6,
        y=row["top1_mean"],
        error=row["top1_stderr"],
        series=series.index(_told(row["algorithm_title"])),
        label=_short(row["config"]),
        details=(
            f"{row['model_title']}, {_told(row['algorithm_title'])}",
            row["config"],
            f"top-1 {row['top1_mean']:.2f} ± {row['top1_stderr']:.2f} %{spread}",
            f"{row['weight_bytes'] / 1e6:.2f} MB{ratio}",
            f"{row['images']:,} images, {row['data']}",
            f"suite {row['suite']}, runtime {row['runtime']}",
        ),
    )


def _short(config: str) -> str:
    """A config as a label in a chart, where pointing at it tells the rest."""
    text = _brief(config)
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"


def _brief(text: str) -> str:
    return text.replace("Unstructured Sparsity ", "").replace(", BatchNorm re-estimated", " BN")


# --- tables


def _table(title: str, text: str, found: list[ConfigRow], table: Table, ids: dict[_Key, str]) -> _Table:
    made = [ids.get(_row_key(row.first)) if row.first else None for row in found]
    return _Table(title, text[0].upper() + text[1:], worded(found, table), made)


def _row_key(record: Record) -> _Key:
    return record.suite, record.data.spec, record.network.name, record.pruning.algorithm, record.config


def _is_number(text: str) -> bool:
    return text in ("-", "failed", "not measured") or re.match(r"[+-]?\d", text) is not None


def _layers(rows: Iterable[list[Record]]) -> list[_Layers]:
    """By network: a row's first measured trial stands for all, which have the same targets."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for trials in rows:
        record = next((trial for trial in trials if trial.package and trial.package.layers), None)
        if record is not None:
            groups.setdefault((record.network.title, record.suite), []).append(record)
    several = len({suite for _, suite in groups}) > 1
    found = []
    for (title, suite), group in groups.items():
        by_config = [{layer.name: layer.sparsity for layer in r.package.layers} for r in group if r.package]
        names = dict.fromkeys(name for layers in by_config for name in layers)
        found.append(
            _Layers(
                title=f"{title}, suite {suite}" if several else title,
                configs=[f"{r.pruning.title}: {_short(r.pruning.config)}" for r in group],
                sparsities={
                    name: [100 * layers[name] if name in layers else None for layers in by_config] for name in names
                },
            )
        )
    return found


def _sensitivity(found: Sensitivity) -> _Charted:
    title = f"{found.title} on {found.data}"
    return _Charted(sensitivity_panels(found), _Table(title, sensitivity_caption(found), sensitivity_rows(found)))


# --- latency


def _latency_series(record: LatencyRecord) -> str:
    return record.package.pruning.title if record.package.pruning else _OTHER_PACKAGES


def _latency(latencies: list[LatencyRecord], series: list[str]) -> list[_Charted]:
    """One chart a device, runtime, choice of compute units and protocol: only such samples can be compared."""
    groups: dict[str, list[LatencyRecord]] = {}
    for record in latencies:
        if record.status == "measured":
            device, runtime = record.device, record.runtime
            title = f"{device.name}, {device.os} {device.os_version}, {runtime.name}, {runtime.compute_units}"
            groups.setdefault(f"{title}\n{record.protocol.model_dump_json()}", []).append(record)
    return [_latency_of(key.split("\n")[0], group, series) for key, group in groups.items()]


def _latency_of(title: str, group: list[LatencyRecord], series: list[str]) -> _Charted:
    from coreml_prune_bench.latency.statistics import durations, summarize
    from coreml_prune_bench.report.latency_tables import besides

    summaries = [summarize(record) for record in group]
    table = [
        {
            "Package": record.package.name,
            "Median (ms)": f"{summary.median_ns.value / 1e6:.3f}",
            "95 % Interval": f"{summary.median_ns.low / 1e6:.3f} to {summary.median_ns.high / 1e6:.3f}",
            "p90 (ms)": "-" if summary.p90_ns is None else f"{summary.p90_ns / 1e6:.3f}",
            "p99 (ms)": "-" if summary.p99_ns is None else f"{summary.p99_ns / 1e6:.3f}",
            "Predictions": f"{summary.predictions:,}",
            "Rounds": f"{len(record.rounds)}",
            **more,
            "Remarks": "; ".join(summary.warnings) or "none",
        }
        for record, summary, more in zip(group, summaries, besides(group), strict=True)
    ]
    drawing = charts.distributions(
        title,
        [
            Distribution(
                name=_brief(record.package.name),
                samples=[float(ns) / 1e6 for one in record.rounds for ns in durations(one)],
                typical=summary.median_ns.value / 1e6,
                series=series.index(_told(_latency_series(record))),
                details=tuple(f"{name}: {text}" for name, text in row.items()),
            )
            for record, summary, row in zip(group, summaries, table, strict=True)
        ],
        "ms a prediction",
    )
    timing = group[0].protocol
    note = (
        f"{timing.rounds} rounds of at least {timing.predictions} predictions and {timing.seconds:g} s each, batch "
        f"{timing.batch_size}, {timing.concurrency} at a time. A line marks the median over rounds of their medians."
    )
    return _Charted([drawing], _Table(title, note, table))


# --- how a row was made


def _made(trials_of: dict[_Key, list[Record]], shipped_suites: Collection[str]) -> list[_Made]:
    groups: dict[tuple[str, ...], list[_Key]] = {}
    for key, trials in trials_of.items():
        groups.setdefault(_commands(trials, shipped_suites), []).append(key)
    return [
        _Made(
            id=f"made-{number}",
            lines=lines,
            rows=[_name(trials_of[key][0]) for key in keys],
            keys=keys,
        )
        for number, (lines, keys) in enumerate(groups.items(), start=1)
    ]


def _name(record: Record) -> str:
    return f"{record.network.title}, {_told(record.pruning.title)}, {record.pruning.config}"


def _commands(trials: list[Record], shipped_suites: Collection[str]) -> tuple[str, ...]:
    """What makes a row again, in a shell, with what is to be known of it as comments."""
    first = trials[0]
    commit, installed = first.provenance.git_commit, first.provenance.packages.get("coreml-prune-bench")
    program = ["coreml-prune-bench"] if installed and not commit else ["python", "run_bench.py"]
    shipped = first.suite in shipped_suites
    command = [*program, "run", *shell_option("--suite", first.suite if shipped else f"{first.suite}.toml")]
    network = first.network
    command += shell_option("--model", network.spec) if network.spec else shell_option("--models", network.name)
    command += shell_option("--data", first.data.spec)
    if network.weights == GIVEN:
        return (str(first.pruning.settings.get("command", "")),)
    needs_weights = re.fullmatch("[0-9a-f]{64}", network.weights)
    if needs_weights:
        command += ["--weights", "DIR"]
    if first.pruning.algorithm not in ("dense", "published"):
        command += shell_option("--algorithms", first.pruning.algorithm)
    if len(trials) > 1:
        command += ["--trials", str(len(trials))]
    if first.data.skipped or first.data.train_skipped:
        command.append("--skip-bad-images")
    lines = []
    if commit and re.fullmatch(r"[0-9a-f]{7,64}\+?", commit):
        changed = f"  {shell_comment('with uncommitted changes')}" if commit.endswith("+") else ""
        lines.append(shell_command(["git", "checkout", commit.removesuffix("+")]) + changed)
    elif commit:
        lines.append(shell_comment(f"at what its record calls the commit {commit}"))
    elif installed:
        lines.append(shell_command(["pip", "install", f"coreml-prune-bench[all]=={installed}"]))
    if network.weights == "as published":
        lines.append(shell_command([*program, "fetch-published"]))
    lines.append(shell_command(command))
    if needs_weights:
        lines.append(shell_comment(f"DIR/{network.name}.pth has the SHA-256 {network.weights}"))
    made_on = first.provenance
    lines.append(shell_comment(f"was run on {made_on.os}, {made_on.cpu_count} processors, Python {made_on.python}"))
    return tuple(lines)
