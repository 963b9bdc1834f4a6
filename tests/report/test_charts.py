"""Charts: what Vega draws follows from the points, and no label covers another."""

import itertools
import json
import random
import re
import xml.etree.ElementTree as ET

import pytest

from coreml_prune_bench.report import drawn
from coreml_prune_bench.report.charts import (
    HIDDEN,
    IN_FILE,
    ON_PAGE,
    Distribution,
    DotRow,
    Point,
    distributions,
    dots,
    finished,
    scatter,
)
from coreml_prune_bench.report.looks import LOOKS, color, form
from tests.report.samples import charted

pytest.importorskip("altair")
vl_convert = pytest.importorskip("vl_convert")

SERIES = {0: "first", 1: "second", 2: "third"}
XY = tuple[float, float]


def point(x: float, y: float, *, series: int = 0, label: str = "50%", details: tuple[str, ...] = ()) -> Point:
    return Point(x, y, 1.0, series, label, details or (label,))


def scattered(*points: Point, hidden: tuple[int, ...] = ()) -> ET.Element:
    """As Vega draws it, at the width of a file."""
    chart = finished([scatter("t", points, "MB", "%", SERIES, IN_FILE)], IN_FILE).to_dict()
    (parameter,) = [one for one in chart["params"] if one["name"] == HIDDEN]
    parameter["value"] = list(hidden)
    return ET.fromstring(vl_convert.vegalite_to_svg(chart))


def place(element: ET.Element) -> XY:
    found = re.match(r"translate\(([-\d.e]+),([-\d.e]+)\)", element.get("transform") or "")
    assert found
    return float(found[1]), float(found[2])


def marks(svg: ET.Element) -> dict[str, XY]:
    """The place of each mark that is told of, by what is told."""
    return {one.get("aria-label") or "": place(one) for one in svg.iter() if one.get("aria-roledescription") == "point"}


def texts(svg: ET.Element, role: str) -> dict[str, XY]:
    groups = [one for one in svg.iter() if role in (one.get("class") or "").split()]
    return {text.text or "": place(text) for group in groups for text in group.iter() if text.tag.endswith("}text")}


def labels(svg: ET.Element) -> dict[str, XY]:
    return texts(svg, "labels_marks")


def test_the_front_holds_what_no_other_beats_in_both_and_is_found_anew_without_what_is_hidden():
    values = [(1, 10, 0), (2, 30, 1), (2, 40, 2), (3, 35, 1), (4, 60, 0), (1, 5, 0)]
    points = [point(x, y, series=series, label=f"{x} {y}") for x, y, series in values]
    assert labels(scattered(*points)).keys() == {"1 10", "2 40", "4 60"}
    without = scattered(*points, hidden=(2,))
    assert labels(without).keys() == {"1 10", "2 30", "3 35", "4 60"}
    assert "2 40" not in marks(without)
    assert labels(scattered(*points, hidden=(0, 2))).keys() == {"2 30", "3 35"}
    assert marks(scattered(*points, hidden=(0, 1, 2))) == {}


def test_the_axes_are_true():
    """The places of the ticks give back each mark's values; smaller is left, and better is up."""
    svg = scattered(point(16.2, 63.71, label="a"), point(51.07, 80.57, label="b"))
    axes = [one for one in svg.iter() if "role-axis-label" in (one.get("class") or "")]
    along, up = (
        {float(text): at[axis] for text, at in texts(one, "role-axis-label").items()} for axis, one in enumerate(axes)
    )

    def value(at: float, scale: dict[float, float]) -> float:
        (a, at_a), (b, at_b) = list(scale.items())[:2]
        return a + (at - at_a) / (at_b - at_a) * (b - a)

    found = marks(svg)
    assert (value(found["a"][0], along), value(found["b"][0], along)) == pytest.approx((16.2, 51.07), abs=0.1)
    assert value(found["a"][1], up) - value(found["b"][1], up) == pytest.approx(63.71 - 80.57, abs=0.1)
    assert found["a"][0] < found["b"][0]
    assert found["a"][1] > found["b"][1]  # y grows downwards


def test_one_point_alone_can_be_drawn():
    assert len(marks(scattered(Point(1, 0, 0, 0, "x", ("x",))))) == 1


@pytest.mark.parametrize("seed", range(3))
def test_labels_cover_neither_each_other_nor_a_mark(seed):
    draw = random.Random(seed)
    points = [point(draw.uniform(4, 7), draw.gauss(40, 25), label=f"{n} %, BN") for n in range(40)]
    svg = scattered(*points)
    boxes = [(x - len(text) * 5.5, y - 9, x, y) for text, (x, y) in labels(svg).items()]
    places = [(x - 4, y - 4, x + 4, y + 4) for x, y in marks(svg).values()]
    assert len(places) == 40
    assert len(boxes) >= 2
    for one, other in [*itertools.combinations(boxes, 2), *itertools.product(boxes, places)]:
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_series_are_told_apart_by_form_and_not_by_colour_alone():
    assert len({form(series) for series in range(8)}) == 8
    assert len({(form(series), color(series)) for series in range(LOOKS)}) == LOOKS
    svg = scattered(point(1, 1, series=0, label="a"), point(2, 2, series=1, label="b"))
    drawn_as = {(one.get("d"), one.get("fill")) for one in svg.iter() if one.get("aria-roledescription") == "point"}
    assert {fill for _, fill in drawn_as} == {color(0), color(1)}
    assert len({outline for outline, _ in drawn_as}) == 2


def test_a_distribution_is_a_histogram_of_its_samples():
    rows = [Distribution("a", [1.0] * 90 + [2.0] * 10, 1.0, 0, ()), Distribution("b", [1.5] * 300 + [50.0], 1.5, 1, ())]
    values = charted(distributions("t", rows, "ms", SERIES, IN_FILE).to_dict())
    heights = [
        {round(value["y"] - value["floor"], 6) for value in values if value["row"] == row and "y" in value} - {0}
        for row in range(2)
    ]
    low, high = sorted(heights[0])
    assert low / high == pytest.approx(10 / 90, abs=1e-4)
    assert "b (1 slower than shown)" in {value.get("text") for value in values}
    peaks = [value["x"] for value in values if value["row"] == 1 and value.get("y", 0) > value["floor"]]
    assert peaks == [pytest.approx(1.5, abs=0.02)]


def test_dots_stand_where_their_values_are():
    rows = [DotRow("a", (0.01, 1.0), (("a0",), ("a1",))), DotRow("b", (0.1, None), (("b0",), ()))]
    svg = ET.fromstring(drawn.svg(finished([dots("t", rows, "x", SERIES, IN_FILE, logarithmic=True)], IN_FILE)))
    found = marks(svg)
    assert found.keys() == {"a0", "a1", "b0"}
    assert found["b0"][0] == pytest.approx((found["a0"][0] + found["a1"][0]) / 2)
    assert found["a0"][1] == found["a1"][1] < found["b0"][1]


def test_files_and_parts_of_pages_are_the_same_bytes_each_time():
    def chart(look):
        return finished([scatter("t", [point(1, 2), point(3, 4, series=1)], "MB", "%", SERIES, look)], look)

    for write in (drawn.svg, drawn.png):
        assert write(chart(IN_FILE)) == write(chart(IN_FILE))
    written = drawn.specification(chart(ON_PAGE))
    assert written == drawn.specification(chart(ON_PAGE))
    assert json.loads(written)["width"] == "container"


def test_what_looks_like_markup_or_an_expression_is_text():
    evil = "</script><script>alert(1)//{{datum.x}}"
    chart = finished([scatter(evil, [point(1, 2, label=evil)], evil, evil, {0: evil}, ON_PAGE)], ON_PAGE)
    assert "<" not in drawn.specification(chart)
    svg = ET.fromstring(drawn.svg(chart))
    assert evil in labels(svg)
