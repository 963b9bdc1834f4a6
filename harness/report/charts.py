"""Charts of a report: laid out once as shapes, drawn as SVG for a page or a file, or as PNG.

A shape says what it is part of, and each drawer how that looks. A series is told by the form of its marks first, and by
their colour second. Nothing here knows of records, and no plotting library is needed.
"""

import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from coreml_prune_bench.core.escaping import one_line, xml_attribute, xml_text

XY = tuple[float, float]

WIDTH = 400
FONT_SIZE = 12

# After Okabe and Ito, whom most colour-blind readers can follow; dark enough for white. Seven, beside eight forms of
# marks, so that no two of 56 series look the same.
_COLORS = ("#222222", "#0072b2", "#c65300", "#00845f", "#b4588d", "#7a6200", "#6a3d9a")
_COLORS_ON_BLACK = ("#e6e6e6", "#56b4e9", "#f0883e", "#3fcf9f", "#e79ac6", "#e0c24a", "#b79ae8")
_LOOKS = {  # style: (colour, line width)
    "axis": ("#444444", 1.0),
    "grid": ("#e3e3e3", 1.0),
    "front": ("#777777", 1.5),
    "leader": ("#999999", 0.75),
    "error": ("", 1.0),
    "median": ("#000000", 2.0),
}
_INK = "#222222"

_HEIGHT = 310
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 30, 42
_MARK_RADIUS = 5.5
_TICKS = 5
_ROW_HEIGHT = 58
_BINS = 60
_DOTS_ROW_HEIGHT = 17
_LONGEST_NAME = 160

_PNG_SCALE = 2
_OVERSAMPLING = 2


@dataclass(frozen=True)
class Line:
    points: tuple[XY, ...]
    style: Literal["axis", "grid", "front", "leader", "error", "median"]
    series: int | None = None
    of: int | None = None


@dataclass(frozen=True)
class Mark:
    """A point of a series. details: what is told of it when it is pointed at, in lines. value: what it stands for, of
    those of which a page finds the front anew. of: which point of its chart it is; so of its label."""

    at: XY
    series: int
    details: tuple[str, ...] = ()
    value: XY | None = None
    of: int | None = None


@dataclass(frozen=True)
class Area:
    points: tuple[XY, ...]
    series: int
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    at: XY
    text: str
    anchor: Literal["start", "middle", "end"] = "start"
    style: Literal["tick", "label", "title"] = "tick"
    series: int | None = None
    of: int | None = None


Shape = Line | Mark | Area | Text


@dataclass(frozen=True)
class Drawing:
    """Shapes on a canvas; y grows downwards. title: what it shows, for those who do not see it."""

    title: str
    width: float
    height: float
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Point:
    """One measured thing of a scatter chart. error: of y, to either side. label: a word or two beside the mark."""

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


# --- layout


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """The points than which none is both at most as large and better, from small to large."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def scatter(title: str, points: Sequence[Point], x_label: str, y_label: str) -> Drawing:
    """Points with their errors, the front of those that are small in x and high in y, and a label beside each."""
    x_low, x_high = _padded([p.x for p in points], 0.12)
    y_low, y_high = _padded([p.y + side * p.error for p in points for side in (-1, 1)], 0.06)

    def place(x: float, y: float) -> XY:
        return (
            _LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM),
        )

    shapes: list[Shape] = [Text((_LEFT, 18), title, style="title")]
    for value in _ticks(x_low, x_high):
        x, _ = place(value, 0)
        shapes += [
            Line(((x, _TOP), (x, _HEIGHT - _BOTTOM)), "grid"),
            Text((x, _HEIGHT - _BOTTOM + 16), f"{value:g}", "middle"),
        ]
    for value in _ticks(y_low, y_high):
        _, y = place(0, value)
        shapes += [Line(((_LEFT, y), (WIDTH - _RIGHT, y)), "grid"), Text((_LEFT - 6, y + 4), f"{value:g}", "end")]
    corner = (_LEFT, _HEIGHT - _BOTTOM)
    shapes += [
        Line(((_LEFT, _TOP), corner, (WIDTH - _RIGHT, _HEIGHT - _BOTTOM)), "axis"),
        Text((WIDTH - _RIGHT, _HEIGHT - 8), x_label, "end"),
        Text((_LEFT + 6, _TOP + 12), y_label),
    ]
    front = pareto_front(points)
    steps = [place(front[0].x, front[0].y)]
    for before, after in itertools.pairwise(front):
        steps += [place(after.x, before.y), place(after.x, after.y)]
    shapes.append(Line(tuple(steps), "front"))
    for point in points:
        low, high = place(point.x, point.y - point.error), place(point.x, point.y + point.error)
        shapes.append(Line((low, high), "error", point.series))
    places = [place(point.x, point.y) for point in points]
    shapes += _labels(points, places)
    shapes += [
        Mark(at, point.series, point.details, (point.x, point.y), number)
        for number, (at, point) in enumerate(zip(places, points, strict=True))
    ]
    return Drawing(title, WIDTH, _HEIGHT, tuple(shapes))


def distributions(title: str, rows: Sequence[Distribution], x_label: str) -> Drawing:
    """A histogram a row over one axis. What lies beyond the slowest row's 99th percentile is left out, and counted."""
    low = min(min(row.samples) for row in rows)
    low, high = _padded([low, max(_percentile(row.samples, 0.99) for row in rows)], 0.04)
    height = _TOP + _ROW_HEIGHT * len(rows) + _BOTTOM
    left = _RIGHT

    def place(x: float) -> float:
        return left + (x - low) / (high - low) * (WIDTH - left - _RIGHT)

    shapes: list[Shape] = [Text((left, 18), title, style="title")]
    for value in _ticks(low, high):
        shapes += [
            Line(((place(value), _TOP), (place(value), height - _BOTTOM)), "grid"),
            Text((place(value), height - _BOTTOM + 16), f"{value:g}", "middle"),
        ]
    for number, row in enumerate(rows):
        floor = _TOP + _ROW_HEIGHT * (number + 1) - 6
        beyond = sum(sample > high for sample in row.samples)
        remark = f" ({beyond:,} slower than shown)" if beyond else ""
        name = _fitting(row.name, WIDTH - left - _RIGHT - _text_width(remark)) + remark
        counts = [0] * _BINS
        for sample in row.samples:
            if sample <= high:
                counts[min(_BINS - 1, int((sample - low) / (high - low) * _BINS))] += 1
        outline: list[XY] = [(left, floor)]
        for position, count in enumerate(counts):
            y = floor - count / max(counts) * (_ROW_HEIGHT - 26)
            outline += [(place(low + (high - low) * side / _BINS), y) for side in (position, position + 1)]
        outline.append((WIDTH - _RIGHT, floor))
        typical = place(row.typical)
        at_end = typical > WIDTH - 90
        shapes += [
            Area(tuple(outline), row.series, row.details),
            Line(((typical, floor + 3), (typical, floor - _ROW_HEIGHT + 24)), "median", row.series),
            Text((left, floor - _ROW_HEIGHT + 20), name, style="label", series=row.series),
            Text(
                (typical + (-5 if at_end else 5), floor - 4), f"{row.typical:#.3g}", "end" if at_end else "start",
                "label", row.series,
            ),
        ]  # fmt: skip
    shapes += [
        Line(((left, height - _BOTTOM), (WIDTH - _RIGHT, height - _BOTTOM)), "axis"),
        Text((WIDTH - _RIGHT, height - 8), x_label, "end"),
    ]
    return Drawing(title, WIDTH, height, tuple(shapes))


def dots(title: str, rows: Sequence[DotRow], x_label: str, *, logarithmic: bool = False) -> Drawing:
    """A row a name, a mark a series along one axis (Cleveland 1984). logarithmic: zeros stand at the low end."""
    known = [value for row in rows for value in row.values if value is not None and (value > 0 or not logarithmic)]
    values = [math.log10(value) for value in known] if logarithmic else known
    low, high = _padded(values or [0.0], 0.05)
    left = _RIGHT + min(max(_text_width(row.name) for row in rows), _LONGEST_NAME)
    height = _TOP + _DOTS_ROW_HEIGHT * len(rows) + _BOTTOM
    floor = height - _BOTTOM

    def place(value: float) -> float:
        return left + 10 + (max(value, low) - low) / (high - low) * (WIDTH - left - 10 - _RIGHT)

    shapes: list[Shape] = [Text((_RIGHT, 18), title, style="title")]
    for tick in _ticks(low, high):
        if logarithmic and tick != round(tick):
            continue
        label = f"{10.0**tick:g}" if logarithmic else f"{tick:g}"
        shapes += [
            Line(((place(tick), _TOP), (place(tick), floor)), "grid"),
            Text((place(tick), floor + 16), label, "middle"),
        ]
    marks: list[Shape] = []
    for number, row in enumerate(rows):
        y = _TOP + _DOTS_ROW_HEIGHT * (number + 0.5)
        shapes += [
            Line(((left + 10, y), (WIDTH - _RIGHT, y)), "grid"),
            Text((left, y + 4), _fitting(row.name, _LONGEST_NAME), "end"),
        ]
        for series, (value, details) in enumerate(zip(row.values, row.details, strict=True)):
            if value is not None:
                at = place(value if not logarithmic else math.log10(value) if value > 0 else low)
                marks.append(Mark((at, y), series, details))
    shapes += [
        Line(((left + 10, floor), (WIDTH - _RIGHT, floor)), "axis"),
        Text((WIDTH - _RIGHT, height - 8), x_label, "end"),
    ]
    return Drawing(title, WIDTH, height, (*shapes, *marks))


def mark(series: int) -> Drawing:
    """A series' mark alone, for a legend in a page."""
    return Drawing("", 16, 16, (Mark((8, 8), series),))


def legend(names: Mapping[int, str], width: float) -> Drawing:
    """Each series' mark and name, in as many lines as it takes."""
    shapes: list[Shape] = []
    x, y = float(_RIGHT), 16.0
    for series, name in names.items():
        needed = 22 + _text_width(name)
        if x > _RIGHT and x + needed > width:
            x, y = float(_RIGHT), y + 20
        shapes += [Mark((x + _MARK_RADIUS, y), series), Text((x + 18, y + 4), name)]
        x += needed + 16
    return Drawing("Legend", width, y + 14, tuple(shapes))


def beside(drawings: Sequence[Drawing], columns: int) -> Drawing:
    """Drawings in rows of `columns`, as one."""
    shapes: list[Shape] = []
    y = 0.0
    for start in range(0, len(drawings), columns):
        row = drawings[start : start + columns]
        x = 0.0
        for drawing in row:
            shapes += [_moved(shape, x, y) for shape in drawing.shapes]
            x += drawing.width
        y += max(drawing.height for drawing in row)
    width = max(sum(d.width for d in drawings[start : start + columns]) for start in range(0, len(drawings), columns))
    return Drawing("; ".join(dict.fromkeys(d.title for d in drawings)), width, y, tuple(shapes))


def _moved(shape: Shape, x: float, y: float) -> Shape:
    if isinstance(shape, Line | Area):
        return replace(shape, points=tuple((px + x, py + y) for px, py in shape.points))
    return replace(shape, at=(shape.at[0] + x, shape.at[1] + y))


def _labels(points: Sequence[Point], places: Sequence[XY]) -> list[Shape]:
    """A label beside each point where it covers nothing else, with a line to it where that is not close by.

    Those of the front find their places first.
    """
    taken = [_box(x, y, 2 * _MARK_RADIUS, 2 * _MARK_RADIUS) for x, y in places]
    shapes: list[Shape] = []
    front = pareto_front(points)
    by_need = sorted(range(len(points)), key=lambda number: points[number] not in front)
    for number, point, (x, y) in ((number, points[number], places[number]) for number in by_need):
        half = _text_width(point.label) / 2
        for distance, angle in itertools.product(range(0, 120, 12), range(0, 360, 30)):
            reach = _MARK_RADIUS + 5 + distance
            along, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            centre = (x + along * (reach + half), y - up * (reach + 4))
            box = _box(*centre, 2 * half, FONT_SIZE)
            if _inside(box) and not any(_overlap(box, other) for other in taken):
                break
        else:
            continue  # hover tells it
        taken.append(box)
        if distance > 12:
            edge = centre[0] - math.copysign(half, along) if abs(along) > 0.1 else centre[0]
            shapes.append(Line(((x, y), (edge, centre[1])), "leader", point.series, number))
        shapes.append(Text((centre[0], centre[1] + 4), point.label, "middle", "label", point.series, number))
    return shapes


Box = tuple[float, float, float, float]


def _box(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _inside(box: Box) -> bool:
    return box[0] > _LEFT and box[1] > _TOP and box[2] < WIDTH - 4 and box[3] < _HEIGHT - _BOTTOM


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _text_width(text: str) -> float:
    """About what a sans-serif takes; no drawer needs it exactly."""
    return 0.56 * FONT_SIZE * len(text)


def _fitting(text: str, width: float) -> str:
    kept = text
    while _text_width(kept) > width:
        kept = f"{kept[:-2]}…"
    return kept


def _padded(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    padding = (high - low) * share or abs(high) * share or 1.0
    return low - padding, high + padding


def _ticks(low: float, high: float) -> list[float]:
    """Round values between the two, about five of them."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(n * step, 10) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


# --- marks


def _form(series: int) -> list[XY]:
    """The outline of a series' mark around (0, 0), of about the same area each."""
    kinds = (
        _regular(24, 0.0, 1.0),  # circle
        _regular(4, 45, 1.2),  # square
        _regular(3, 90, 1.35),  # triangle
        _regular(4, 0, 1.3),  # diamond
        _regular(3, 270, 1.35),  # triangle on its head
        _plus(),
        _regular(5, 90, 1.2),
        _star(),
    )
    return kinds[series % len(kinds)]


def _regular(corners: int, turn: float, radius: float) -> list[XY]:
    angles = [math.radians(turn + 360 * corner / corners) for corner in range(corners)]
    return [(radius * math.cos(angle), -radius * math.sin(angle)) for angle in angles]


def _plus() -> list[XY]:
    arm, half = 1.25, 0.42
    quarter = [(half, -half), (half, -arm), (-half, -arm), (-half, -half)]
    turned = [[(x, y), (y, -x), (-x, -y), (-y, x)] for x, y in quarter]
    return [corner[turn] for turn in range(4) for corner in turned]


def _star() -> list[XY]:
    outer, inner = _regular(5, 90, 1.5), _regular(5, 126, 0.62)
    return [corner for pair in zip(outer, inner, strict=True) for corner in pair]


def _outline(mark: Mark) -> list[XY]:
    return [(mark.at[0] + _MARK_RADIUS * x, mark.at[1] + _MARK_RADIUS * y) for x, y in _form(mark.series)]


# --- SVG


def svg(drawing: Drawing, *, alone: bool = False) -> str:
    """An <svg> element. alone: a file with looks of its own on white, where a page would give them by class."""
    style = f"<style>{_own_style({s.series for s in drawing.shapes if s.series is not None})}</style>" if alone else ""
    paper = '<rect width="100%" height="100%" fill="#fff"/>' if alone else ""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawing.width:g} {drawing.height:g}" role="group" '
        f"aria-label={xml_attribute(drawing.title)}"
        + (f' width="{drawing.width:g}" height="{drawing.height:g}">' if alone else ">")
    )
    return "\n".join([head, style + paper, *map(_svg_of, drawing.shapes), "</svg>"])


def _svg_of(shape: Shape) -> str:
    if isinstance(shape, Line):
        looks = f'class="{_class(shape.style, shape.series)}"{_of(shape.of)}'
        return f'<polyline {looks} points="{_svg_points(shape.points)}"/>'
    if isinstance(shape, Text):
        at = f'x="{shape.at[0]:.1f}" y="{shape.at[1]:.1f}" text-anchor="{shape.anchor}"'
        return f'<text class="{_class(shape.style, shape.series)}"{_of(shape.of)} {at}>{xml_text(shape.text)}</text>'
    if isinstance(shape, Mark):
        # A finger is wider than a mark.
        reach = f'<circle class="reach" cx="{shape.at[0]:.1f}" cy="{shape.at[1]:.1f}" r="12"/>'
        return _svg_group("mark", shape, (reach if shape.details else "") + _svg_polygon(_outline(shape)))
    return _svg_group("area", shape, _svg_polygon(shape.points))


def _svg_group(kind: str, shape: Mark | Area, content: str) -> str:
    told = ""
    if shape.details:
        label, details = (xml_attribute(end.join(shape.details)) for end in (", ", "\n"))
        told = f' tabindex="0" role="img" aria-label={label} data-details={details}'
    if isinstance(shape, Mark) and shape.value:
        x, y = shape.value
        told += f' data-series="{shape.series}" data-x="{x!r}" data-y="{y!r}"{_of(shape.of)}'
    return f'<g class="{_class(kind, shape.series)}"{told}>{content}</g>'


def _svg_polygon(points: Iterable[XY]) -> str:
    return f'<polygon points="{_svg_points(points)}"/>'


def _of(point: int | None) -> str:
    return "" if point is None else f' data-of="{point}"'


def _class(style: str, series: int | None) -> str:
    return style if series is None else f"{style} s{series}"


def _svg_points(points: Iterable[XY]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _own_style(series: set[int]) -> str:
    lines = [f".{style}{{fill:none;stroke:{ink};stroke-width:{width}}}" for style, (ink, width) in _LOOKS.items()]
    colors = [f".s{n} polygon{{fill:{color(n)}}}.error.s{n}{{stroke:{color(n)}}}" for n in sorted(series)]
    return (
        f"text{{font:{FONT_SIZE}px system-ui,sans-serif;fill:{_INK}}}.title{{font-weight:600;font-size:14px}}"
        ".label{paint-order:stroke;stroke:#fff;stroke-width:3px}.reach{fill:none}.mark polygon{stroke:#fff}"
        ".area polygon{fill-opacity:.45}" + "".join(lines) + "".join(colors)
    )


# --- PNG


def png(drawing: Drawing) -> bytes:
    """The drawing on white, two pixels a unit."""
    scale = _PNG_SCALE * _OVERSAMPLING  # drawn larger, because Pillow does not smooth edges
    canvas = Image.new("RGB", (round(drawing.width * scale), round(drawing.height * scale)), "white")
    pen = ImageDraw.Draw(canvas)
    for shape in drawing.shapes:
        _draw(pen, shape, scale)
    size = (canvas.width // _OVERSAMPLING, canvas.height // _OVERSAMPLING)
    file = io.BytesIO()
    canvas.resize(size, Image.Resampling.LANCZOS).save(file, "PNG")
    return file.getvalue()


def _draw(pen: ImageDraw.ImageDraw, shape: Shape, scale: float) -> None:
    def scaled(points: Iterable[XY]) -> list[XY]:
        return [(x * scale, y * scale) for x, y in points]

    if isinstance(shape, Line):
        ink, width = _LOOKS[shape.style]
        pen.line(scaled(shape.points), ink or color(shape.series or 0), round(width * scale), joint="curve")
    elif isinstance(shape, Text):
        size = 14 if shape.style == "title" else FONT_SIZE
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
        font = ImageFont.load_default(size * scale)
        halo = round(1.5 * scale) if shape.style == "label" else 0
        told = one_line(shape.text)  # Pillow places no other by an anchor
        pen.text(scaled([shape.at])[0], told, _INK, font, anchor, stroke_width=halo, stroke_fill="white")
    elif isinstance(shape, Mark):
        pen.polygon(scaled(_outline(shape)), color(shape.series), "white", round(scale))
    else:
        pen.polygon(scaled(shape.points), _faint(color(shape.series)))


def color(series: int, *, on_black: bool = False) -> str:
    """A series' colour, as #rrggbb."""
    return (_COLORS_ON_BLACK if on_black else _COLORS)[series % len(_COLORS)]


def _faint(ink: str) -> str:
    """Half way to white."""
    parts = [int(ink[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{(part + 255) // 2:02x}" for part in parts)
