"""One page that shows what the records of a results folder say: an answer, charts, tables, layers, latency, and how
each row was made.

The page needs no network and no other file. Like tables, it reads records and never models. Without the extra `charts`
it is a page without charts, which says so.
"""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import jinja2

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.escaping import printable
from coreml_prune_bench.core.files import refuse_file, write_atomically
from coreml_prune_bench.records.accuracy import Record, read_records
from coreml_prune_bench.records.folder import on_standard_error
from coreml_prune_bench.records.latency import LatencyRecord, read_latency_records
from coreml_prune_bench.records.latest import left_out, newest_trials
from coreml_prune_bench.records.sensitivity import Sensitivity
from coreml_prune_bench.report.accuracy_tables import COLUMNS, caption, comparison_caption, rows
from coreml_prune_bench.report.answer import Answer, answers, choice_cells, latency_cells, medians
from coreml_prune_bench.report.charts import IN_FILE, ON_PAGE, WITHOUT_SCRIPT, Draw, finished
from coreml_prune_bench.report.config_rows import ConfigRow, beside_published, config_rows
from coreml_prune_bench.report.drawn import can_draw, png, specification, svg, vega
from coreml_prune_bench.report.formats import number, values
from coreml_prune_bench.report.looks import color, form
from coreml_prune_bench.report.made import how_made, name_of, row_key
from coreml_prune_bench.report.page_charts import latency_charts, pareto, sensitivity_charts, series_of
from coreml_prune_bench.report.page_tables import Linked, PageTable, layers_of, page_table
from coreml_prune_bench.report.sensitivity import kept_sensitivities

if TYPE_CHECKING:
    import altair as alt

Format = Literal["html", "png", "svg"]

_TEMPLATE = Path(__file__).with_name("page.html.jinja")
_COLUMNS_OF_CHARTS = 2
_SIZES = "Bytes of weight.bin and of the whole package; ratios are of weight.bin, dense over pruned."


def write_report(
    results: Path, out: Path, format: Format, *, shipped_suites: Collection[str], force: bool = False
) -> None:
    """Write the page, or its charts alone, to `out`. shipped_suites: the names of those that need no file.

    Raises BenchError where there are no records, nothing to draw, or `out` cannot be written or, without `force`, is
    there already.
    """
    refuse_file(out, str(out), replace=force)
    records, latencies = read_records(results), read_latency_records(results)
    for line in left_out(records):
        on_standard_error(line)
    if format == "html":
        linked = _links(results, out.parent)
        sensitivities = kept_sensitivities(results)
        content = page(records, latencies, sensitivities, shipped_suites=shipped_suites, linked=linked).encode()
    else:
        drawn = figure(records, latencies)
        content = png(drawn) if format == "png" else svg(drawn).encode()
    write_atomically(out, content)


def figure(records: list[Record], latencies: list[LatencyRecord]) -> "alt.TopLevelMixin":
    """All charts and their legend as one. Raises BenchError where nothing was measured, or the extra is missing."""
    table = rows(records)
    series = series_of([row for row in table if row["top1_mean"] is not None], latencies)
    draws = [
        *(draw for _, draw in pareto(table, series)),
        *(draw for one in latency_charts(latencies, series) for draw in one.draw),
    ]
    if not draws:
        raise BenchError("no row was measured: there is nothing to draw")
    return finished([draw(IN_FILE) for draw in draws], IN_FILE, columns=_COLUMNS_OF_CHARTS)


@dataclass(frozen=True)
class _PageChart:
    """What the page's script draws, and what shows where scripts are off."""

    specification: str
    still: str


def _on_page(draw: Draw) -> _PageChart:
    live, still = (finished([draw(look)], look) for look in (ON_PAGE, WITHOUT_SCRIPT))
    return _PageChart(specification(live), svg(still))


def page(
    records: list[Record],
    latencies: list[LatencyRecord],
    sensitivities: Iterable[Sensitivity] = (),
    *,
    shipped_suites: Collection[str],
    linked: Linked = lambda row: None,
) -> str:
    """The page, as HTML. linked: where the package of a row lies, seen from the page."""
    found = config_rows(records)
    table = [values(COLUMNS, row) for row in found]
    trials_of = {row_key(trials[0]): trials for trials in newest_trials(records)}
    made = how_made(trials_of, shipped_suites)
    ids = {key: one.id for one in made for key in one.keys}
    series = series_of(table, latencies)
    timed = medians(latencies)
    sensitivities = list(sensitivities)
    drawn = can_draw()
    fronts = pareto(table, series)
    timings = latency_charts(latencies, series)
    levels = max((len(one.layers[0].effects) for one in sensitivities), default=0)

    def sized(row: ConfigRow) -> dict[str, str]:
        size = None if row.weight_bytes is None else row.weight_bytes / 1e6
        return {"Weights (MB)": number()(size), **latency_cells(row, timed)}

    tables = [
        page_table("Accuracy", caption(found), found, "accuracy", ids, linked, series, sized),
        page_table("Size", _SIZES, found, "size", ids, linked, series),
    ]
    if any(row.published for row in found):
        beside = beside_published(found)
        told = comparison_caption(beside)
        tables.append(page_table("Beside the published table", told, beside, "comparison", ids, linked, series))
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
        series=[(number, name, form(number)) for name, number in series.items()],
        answers=[(one.network, _answer_table(one, timed, linked)) for one in answers(found)],
        colors=_colors([*series.values(), *range(levels)]),
        drawn=drawn,
        vega=vega() if drawn and (fronts or timings or sensitivities) else "",
        pareto=[(network, _on_page(draw)) for network, draw in fronts if drawn],
        tables=tables,
        layers=layers_of(trials_of.values()),
        sensitivity=[
            (found.title, one, [_on_page(draw) for draw in one.draw if drawn])
            for found, one in ((found, sensitivity_charts(found)) for found in sensitivities)
        ],
        latency=[(one, [_on_page(draw) for draw in one.draw if drawn]) for one in timings],
        made=made,
        failures=[
            (f"{name_of(r)}, trial {r.trial + 1}", r.brief_reason)
            for trials in trials_of.values()
            for r in trials
            if r.status == "failed"
        ],
    )


def _colors(series: Iterable[int]) -> list[tuple[int, str, str]]:
    """The colours of each series, on white and on black."""
    return [(one, color(one), color(one, on_black=True)) for one in sorted(set(series))]


def _answer_table(answer: Answer, timed: dict[str, dict[str, float]], linked: Linked) -> PageTable:
    cells = [choice_cells(choice, timed) for choice in answer.choices]
    packages = [linked(choice.row) for choice in answer.choices]
    return PageTable(answer.title, " ".join(answer.missing), cells, [], packages if any(packages) else [])


def _links(results: Path, folder: Path) -> Linked:
    """To packages that are there, below the results folder, from a page in `folder`."""
    base = PurePosixPath(Path(os.path.relpath(results, folder)).as_posix())

    def linked(row: ConfigRow) -> str | None:
        place = row.packages[0].path if row.packages else None
        if place is None or PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            return None
        return quote(f"./{base / place}") if (results / place).is_dir() else None

    return linked
