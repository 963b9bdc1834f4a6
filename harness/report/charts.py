"""Charts of a report as altair describes them: what is shown of the points, and nothing of the records behind them.

Each is a chart of Vega-Lite that a page draws as wide as it is, or a file at a fixed width. A page hides series of it
by the parameter `hidden`; the front is found by the chart itself, of what is left. altair comes with the extra
`charts`, and is imported where a chart is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from coreml_prune_bench.core.escaping import one_line, printable
from coreml_prune_bench.core.extras import extras_named
from coreml_prune_bench.report.looks import color, form

if TYPE_CHECKING:
    import altair as alt

    Chart = alt.LayerChart

HIDDEN, MARKS, LABELS = "hidden", "points", "labels"
"""What a page's script asks a chart for: the parameter with the numbers of series that are not shown, and layers."""

_WIDTH = 440
_HEIGHT = 320
_LETTER = 6.5
"""About the width of one in a label, in pixels."""
_MARK_SIZE = 110
_REACH = 600
"""A finger is wider than a mark; square pixels."""
_ROW_HEIGHT = 58
_DOTS_ROW_HEIGHT = 17
_BINS = 60
_LONGEST_NAME = 160
_LEGEND_COLUMNS = 5
_DETAILS = "details"


@dataclass(frozen=True)
class Look:
    """The colours of what is not a series, and of each series. width: in pixels, or that of what holds the chart."""

    ink: str
    soft: str
    line: str
    paper: str
    font: str
    color: Callable[[int], str]
    width: int | str
    legend: bool = False
    """Whether charts say what their series are; a page says it once, of algorithms."""
    labels_move: bool = False
    """Whether a page finds places for labels; else those are left out that would cover another."""


IN_FILE = Look("#222222", "#555555", "#e3e3e3", "#ffffff", "sans-serif", color, _WIDTH, legend=True)
_IN_COLORS_OF_PAGE = ("var(--ink)", "var(--soft)", "var(--line)", "var(--paper)", "system-ui, sans-serif")
ON_PAGE = Look(*_IN_COLORS_OF_PAGE, lambda series: f"var(--s{series})", "container", labels_move=True)
WITHOUT_SCRIPT = Look(*_IN_COLORS_OF_PAGE, lambda series: f"var(--s{series})", 2 * _WIDTH)


@dataclass(frozen=True)
class Point:
    """One measured thing of a scatter chart. error: of y, to either side. label: a word or two beside the mark.
    details: what is told of it when it is pointed at, in lines."""

    x: float
    y: float
    error: float
    series: int
    label: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class Distribution:
    """Samples of one row of a chart of distributions, with the typical value that is marked."""

    name: str
    samples: Sequence[float]
    typical: float
    series: int
    details: tuple[str, ...]


@dataclass(frozen=True)
class DotRow:
    """A row of a chart of dots: a value a series, None where there is none, with what is told of each."""

    name: str
    values: tuple[float | None, ...]
    details: tuple[tuple[str, ...], ...]


Draw = Callable[[Look], "Chart"]
"""What draws a chart once its look is known."""


@extras_named()
def scatter(
    title: str, points: Sequence[Point], x_label: str, y_label: str, names: Mapping[int, str], look: Look
) -> Chart:
    """Points with their errors, and the front of those that are small in x and high in y, with their labels.

    names: what each series is called. Of a front no point lies above and to the left of another, so labels go there.
    """
    import altair as alt

    x_range = _padded([p.x for p in points], 0.12)
    y_range = _padded([p.y + side * p.error for p in points for side in (-1, 1)], 0.06)
    values = [
        {
            "x": p.x, "y": p.y, "low": p.y - p.error, "high": p.y + p.error, "series": p.series,
            "name": names[p.series], "label": one_line(p.label), _DETAILS: _told(p.details),
        }
        for p in points
    ]  # fmt: skip
    x = alt.X("x:Q", title=x_label, scale=alt.Scale(domain=x_range, nice=False, zero=False))
    y = alt.Y("y:Q", title=y_label, scale=alt.Scale(domain=y_range, nice=False, zero=False))
    shown = _of_shown_series(alt.Chart())
    order = [alt.SortField("x", order="ascending"), alt.SortField("y", order="descending")]
    front = (
        shown.transform_window(best="max(y)", sort=order, frame=[None, 0])
        .transform_window(before="lag(best)", x_before="lag(x)", sort=order)
        .transform_filter("!isValid(datum.before) || datum.y > datum.before")
    )
    labelled = front
    if not look.labels_move:  # a letter is 11 pixels high
        high, wide = ((span[1] - span[0]) / side for span, side in ((y_range, _HEIGHT), (x_range, _pixels(look))))
        labelled = front.transform_window(lag_y="lag(y)", lag_x="lag(x)", sort=order).transform_filter(
            f"!isValid(datum.lag_y) || datum.y - datum.lag_y > {11 * high!r} || "
            f"datum.x - datum.lag_x > {_LETTER * wide!r} * length(datum.label)"
        )
    told = alt.Description(f"{_DETAILS}:N")
    beside = {} if look.labels_move else {"dx": -5, "dy": -4}
    layers = [
        front.mark_line(interpolate="step-after", color=look.soft, strokeWidth=1.5, aria=False).encode(x=x, y=y),
        shown.mark_rule(aria=False).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=_colors(names, look, look.legend)),
        shown.mark_point(size=_REACH, filled=True, opacity=0, aria=False).encode(x=x, y=y),
        shown.mark_point(size=_MARK_SIZE, filled=True, opacity=1, stroke=look.paper, strokeWidth=1)
        .encode(x=x, y=y, color=_colors(names, look, look.legend), shape=_shapes(names, look.legend), description=told)
        .properties(name=MARKS),
        labelled.mark_text(align="right", baseline="bottom", color=look.ink, aria=False, **beside)
        .encode(x=x, y=y, text="label:N")
        .properties(name=LABELS),
    ]
    return _layered(layers, values, title, _HEIGHT, look)


@extras_named()
def distributions(
    title: str, rows: Sequence[Distribution], x_label: str, names: Mapping[int, str], look: Look
) -> Chart:
    """A histogram a row over one axis. What lies beyond the slowest row's 99th percentile is left out, and counted."""
    import altair as alt

    low, high = _padded(
        [min(min(row.samples) for row in rows), max(_percentile(row.samples, 0.99) for row in rows)], 0.04
    )
    outlines: list[dict[str, Any]] = []
    typical: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        floor = len(rows) - 1 - number
        own = {"row": number, "series": row.series, "name": names[row.series], "floor": floor}
        outlines += [{**own, "x": x, "y": floor + 0.55 * share} for x, share in _histogram(row.samples, low, high)]
        outlines[-_BINS - 1][_DETAILS] = _told(row.details)  # the first of an outline speaks for all of it
        beyond = sum(sample > high for sample in row.samples)
        typical.append(
            {
                **own, "x": row.typical, "top": floor + 0.65, "left": low, "above": floor + 0.68,
                "text": one_line(row.name) + (f" ({beyond:,} slower than shown)" if beyond else ""),
                "value": f"{row.typical:#.3g}",
            }
        )  # fmt: skip
    x = alt.X("x:Q", title=x_label, scale=alt.Scale(domain=[low, high], nice=False, zero=False))
    heights = alt.Scale(domain=[0, len(rows)], nice=False)
    y = alt.Y("y:Q", axis=None, scale=heights)
    shown = _of_shown_series(alt.Chart(alt.Data(values=outlines)))
    marked = _of_shown_series(alt.Chart())
    layers = [
        shown.mark_area(interpolate="step-after", opacity=0.5, line=False).encode(
            x=x, y=y, y2="floor:Q", detail="row:N", color=_colors(names, look, look.legend),
            description=alt.Description(f"{_DETAILS}:N"),
        ),
        marked.mark_rule(strokeWidth=2, color=look.ink, aria=False).encode(
            x=x, y=alt.Y("floor:Q", axis=None, scale=heights), y2="top:Q"
        ),
        marked.mark_text(align="left", baseline="bottom", dx=2, color=look.ink, limit=_pixels(look), aria=False).encode(
            x=alt.X("left:Q"), y=alt.Y("above:Q", axis=None, scale=heights), text="text:N"
        ),
        marked.mark_text(align="left", baseline="bottom", dx=5, dy=-2, color=look.ink, aria=False).encode(
            x=x, y=alt.Y("floor:Q", axis=None, scale=heights), text="value:N"
        ),
    ]  # fmt: skip
    return _layered(layers, typical, title, _ROW_HEIGHT * len(rows), look)


@extras_named()
def dots(
    title: str,
    rows: Sequence[DotRow],
    x_label: str,
    names: Mapping[int, str],
    look: Look,
    *,
    logarithmic: bool = False,
) -> Chart:
    """A row a name, a mark a series along one axis (Cleveland 1984). logarithmic: of values above 0."""
    import altair as alt

    values = [
        {"row": printable(row.name), "x": value, "series": series, "name": names[series], _DETAILS: _told(details)}
        for row in rows
        for series, (value, details) in enumerate(zip(row.values, row.details, strict=True))
        if value is not None
    ]
    scale = alt.Scale(type="log", nice=False, padding=8) if logarithmic else alt.Scale(zero=False, padding=8)
    order = [printable(row.name) for row in rows]
    axis = alt.Axis(title=None, labelLimit=_LONGEST_NAME, grid=True)
    marks = (
        alt.Chart()
        .mark_point(size=_MARK_SIZE, filled=True, opacity=1, stroke=look.paper, strokeWidth=1)
        .encode(
            x=alt.X("x:Q", title=x_label, scale=scale),
            y=alt.Y("row:N", sort=order, scale=alt.Scale(domain=order), axis=axis),
            color=_colors(names, look, True),
            shape=_shapes(names, True),
            description=alt.Description(f"{_DETAILS}:N"),
        )
    )
    return _layered([marks], values, title, _DOTS_ROW_HEIGHT * len(rows), look, hides=False)


@extras_named()
def finished(panels: Sequence[Chart], look: Look, *, columns: int = 1) -> alt.TopLevelMixin:
    """Panels in rows of `columns`, with the colours and fonts of the look; a page has them one by one."""
    import altair as alt

    whole = panels[0] if len(panels) == 1 else alt.concat(*panels, columns=columns)
    text = {"labelColor": look.soft, "titleColor": look.soft, "titleFontWeight": "normal"}
    return (
        whole.configure(font=look.font, background="transparent" if look is not IN_FILE else look.paper)
        .configure_axis(
            **text, gridColor=look.line, domainColor=look.soft, tickColor=look.soft, labelFontSize=12, titleFontSize=12
        )
        .configure_title(color=look.ink, fontSize=14, anchor="start")
        .configure_text(fontSize=12)
        .configure_legend(
            **text, orient="bottom", columns=_LEGEND_COLUMNS if columns > 1 else 2, labelFontSize=12, symbolOpacity=1
        )
        .configure_view(stroke=None)
    )


def _layered(
    layers: Sequence[Any], values: list[dict[str, Any]], title: str, height: int, look: Look, *, hides: bool = True
) -> Chart:
    """values: the data of those layers that have none of their own."""
    import altair as alt

    parameters = [alt.param(name=HIDDEN, value=[])] if hides else []
    whole = {"title": one_line(title), "width": look.width, "height": height}
    chart = alt.layer(*layers, data=alt.Data(values=values), **whole)
    return cast("Chart", chart.add_params(*parameters))


def _of_shown_series(chart: Any) -> Any:
    return chart.transform_filter(f"indexof({HIDDEN}, datum.series) < 0")


def _colors(names: Mapping[int, str], look: Look, legend: bool) -> alt.Color:
    import altair as alt

    scale = alt.Scale(domain=[*names.values()], range=[look.color(series) for series in names])
    return alt.Color("name:N", scale=scale, legend=alt.Legend(title=None) if legend else None)


def _shapes(names: Mapping[int, str], legend: bool) -> alt.Shape:
    import altair as alt

    scale = alt.Scale(domain=[*names.values()], range=[form(series) for series in names])
    return alt.Shape("name:N", scale=scale, legend=alt.Legend(title=None) if legend else None)


def _pixels(look: Look) -> int:
    return look.width if isinstance(look.width, int) else _WIDTH


def _told(details: Iterable[str]) -> str:
    return "\n".join(map(printable, details))


def _histogram(samples: Sequence[float], low: float, high: float) -> list[tuple[float, float]]:
    """Where each bin begins, and how full it is beside the fullest; at last where the axis ends."""
    counts = [0] * _BINS
    for sample in samples:
        if sample <= high:
            counts[min(_BINS - 1, int((sample - low) / (high - low) * _BINS))] += 1
    edges = [low + (high - low) * number / _BINS for number in range(_BINS + 1)]
    return list(zip(edges, [*(count / max(counts) for count in counts), 0.0], strict=True))


def _padded(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    padding = (high - low) * share or abs(high) * share or 1.0
    return low - padding, high + padding


def _percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
