"""Charts: what they show follows from the points, and no label covers another."""

import itertools
import random
import re

import pytest

from coreml_prune_bench.report import charts
from coreml_prune_bench.report.charts import (
    Distribution,
    Line,
    Mark,
    Point,
    Text,
    pareto_front,
    scatter,
)


def point(x: float, y: float, *, series: int = 0, label: str = "50%") -> Point:
    return Point(x, y, 1.0, series, label, (label,))


def test_the_front_holds_what_no_other_beats_in_both():
    points = [point(1, 10), point(2, 30), point(2, 40), point(3, 35), point(4, 60), point(1, 5)]
    assert [(p.x, p.y) for p in pareto_front(points)] == [(1, 10), (2, 40), (4, 60)]


def test_smaller_is_left_and_better_is_up():
    drawing = scatter("t", [point(10, 80), point(20, 60, series=1)], "MB", "%")
    (small, good), (large, bad) = (shape.at for shape in drawing.shapes if isinstance(shape, Mark))
    assert small < large
    assert good < bad  # y grows downwards


def test_the_axes_are_true():
    """The places of the ticks give back each mark's values."""
    drawing = scatter("t", [point(16.2, 63.71), point(51.07, 80.57)], "MB", "%")
    ticks = [shape for shape in drawing.shapes if isinstance(shape, Text) and re.fullmatch(r"[\d.]+", shape.text)]
    along = {float(t.text): t.at[0] for t in ticks if t.anchor == "middle" and t.style == "tick"}
    up = {float(t.text): t.at[1] - 4 for t in ticks if t.anchor == "end"}

    def value(at: float, scale: dict[float, float]) -> float:
        (a, at_a), (b, at_b) = list(scale.items())[:2]
        return a + (at - at_a) / (at_b - at_a) * (b - a)

    found = [(value(s.at[0], along), value(s.at[1], up)) for s in drawing.shapes if isinstance(s, Mark)]
    assert found == [pytest.approx((16.2, 63.71)), pytest.approx((51.07, 80.57))]


def test_one_point_alone_can_be_drawn():
    assert scatter("t", [Point(1, 0, 0, 0, "x", ())], "MB", "%").shapes


@pytest.mark.parametrize("seed", range(5))
def test_labels_cover_neither_each_other_nor_a_mark(seed):
    draw = random.Random(seed)
    points = [point(draw.choice([4, 5, 7]), draw.gauss(40, 25), label=f"{n} %") for n in range(14)]
    drawing = scatter("t", points, "MB", "%")
    boxes = [
        (t.at[0] - len(t.text) * 3, t.at[1] - 9, t.at[0] + len(t.text) * 3, t.at[1])
        for t in drawing.shapes
        if isinstance(t, Text) and t.style == "label"
    ]
    marks = [(s.at[0] - 4, s.at[1] - 4, s.at[0] + 4, s.at[1] + 4) for s in drawing.shapes if isinstance(s, Mark)]
    assert len(boxes) >= 12
    for one, other in [*itertools.combinations(boxes, 2), *itertools.product(boxes, marks)]:
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_series_are_told_apart_by_form_and_not_by_colour_alone():
    outlines = {re.search(r'points="[^"]*"', charts.svg(charts.mark(n)))[0] for n in range(8)}
    assert len(outlines) == 8
    looks = {(n % 8, charts.color(n)) for n in range(56)}
    assert len(looks) == 56


def test_a_distribution_is_a_histogram_of_its_samples():
    rows = [Distribution("a", [1.0] * 90 + [2.0] * 10, 1.0, 0, ()), Distribution("b", [1.5] * 300 + [50.0], 1.5, 1, ())]
    drawing = charts.distributions("t", rows, "ms")
    first, second = (shape for shape in drawing.shapes if isinstance(shape, charts.Area))
    floor = max(y for _, y in first.points)
    heights = sorted({round(floor - y, 6) for _, y in first.points} - {0})
    assert heights[0] / heights[1] == pytest.approx(10 / 90)
    names = [shape.text for shape in drawing.shapes if isinstance(shape, Text) and shape.style == "label"]
    assert "b (1 slower than shown)" in names
    medians = [s.points[0][0] for s in drawing.shapes if isinstance(s, Line) and s.style == "median"]
    peak = min(second.points, key=lambda place: place[1])[0]
    assert medians[1] == pytest.approx(peak, abs=10)
