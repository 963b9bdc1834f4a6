"""One page that shows what the records of a results folder say: an answer, charts, tables, layers, latency, and how
each row was made.

The page needs no network and no other file. Like tables, it reads records and never models.
"""

import os
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

import jinja2

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.escaping import printable
from coreml_prune_bench.core.files import refuse_file, write_atomically
from coreml_prune_bench.records.accuracy import Record, read_records
from coreml_prune_bench.records.latency import LatencyRecord, read_latency_records
from coreml_prune_bench.records.latest import newest_trials
from coreml_prune_bench.records.sensitivity import Sensitivity
from coreml_prune_bench.report import charts
from coreml_prune_bench.report.accuracy_tables import COLUMNS, caption, comparison_caption, rows
from coreml_prune_bench.report.answer import Answer, answers, choice_cells, latency_cells, medians
from coreml_prune_bench.report.charts import Drawing
from coreml_prune_bench.report.config_rows import ConfigRow, beside_published, config_rows
from coreml_prune_bench.report.formats import number, values
from coreml_prune_bench.report.made import how_made, name_of, row_key
from coreml_prune_bench.report.page_charts import latency_charts, pareto, sensitivity_charts, series_of
from coreml_prune_bench.report.page_tables import Linked, PageTable, layers_of, page_table
from coreml_prune_bench.report.sensitivity import kept_sensitivities

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
    if format == "html":
        linked = _links(results, out.parent)
        sensitivities = kept_sensitivities(results)
        content = page(records, latencies, sensitivities, shipped_suites=shipped_suites, linked=linked).encode()
    else:
        drawing = figure(records, latencies)
        content = charts.png(drawing) if format == "png" else charts.svg(drawing, alone=True).encode()
    write_atomically(out, content)


def figure(records: list[Record], latencies: list[LatencyRecord]) -> Drawing:
    """All charts and their legend as one drawing. Raises BenchError where nothing was measured."""
    table = rows(records)
    series = series_of([row for row in table if row["top1_mean"] is not None], latencies)
    drawings = [
        *(drawing for _, drawing in pareto(table, series)),
        *(drawing for one in latency_charts(latencies, series) for drawing in one.drawings),
    ]
    if not drawings:
        raise BenchError("no row was measured: there is nothing to draw")
    panels = charts.beside(drawings, _COLUMNS_OF_CHARTS)
    return charts.beside([panels, charts.legend({number: name for name, number in series.items()}, panels.width)], 1)


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
        series=[(number, name, charts.svg(charts.mark(number))) for name, number in series.items()],
        answers=[(one.network, _answer_table(one, timed, linked)) for one in answers(found)],
        colors=_colors([*series.values(), *range(levels)]),
        pareto=[(network, charts.svg(drawing)) for network, drawing in pareto(table, series)],
        tables=tables,
        layers=layers_of(trials_of.values()),
        sensitivity=[
            (found.title, one, list(map(charts.svg, one.drawings)))
            for found, one in ((found, sensitivity_charts(found)) for found in sensitivities)
        ],
        latency=[(one, list(map(charts.svg, one.drawings))) for one in latency_charts(latencies, series)],
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
    return [(one, charts.color(one), charts.color(one, on_black=True)) for one in sorted(set(series))]


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
