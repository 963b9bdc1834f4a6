"""What the tests of the page show, and a reader for it."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from coreml_prune_bench.records.latency import (
    LatencyRecord,
    MeasuredPackage,
)
from coreml_prune_bench.records.sensitivity import Effect, LayerSensitivity, Sensitivity
from tests.factories import four_images, latency_record

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "results" / "imagenet-sample"


class Page(HTMLParser):
    """Tags with their attributes, tables as rows of texts, charts as Vega-Lite has them, and all text but scripts'."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.charts: list[dict[str, Any]] = []
        self.text = ""
        self._cell = False
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True
        elif tag == "script":
            self._script = dict(attrs).get("type") or "text/javascript"

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        if self._script:
            if self._script == "application/json":
                self.charts.append(json.loads(data))
            return
        self.text += data
        if self._cell:
            self.tables[-1][-1][-1] += data

    def details(self) -> list[str]:
        """What is told of the marks of charts."""
        return [row["details"] for chart in self.charts for row in charted(chart) if "details" in row]

    def commands(self) -> list[str]:
        return [line for line in self.text.splitlines() if "run_bench.py" in line]


def charted(chart: dict[str, Any]) -> list[dict[str, Any]]:
    """The data of a chart and of its layers, as Vega-Lite has them."""
    own = chart.get("data", {}).get("values", [])
    return own + [row for layer in chart.get("layer", []) for row in charted(layer)]


def latencies(medians: list[int], *, units: str = "all") -> LatencyRecord:
    """A round for each median, of three calls around it."""
    package = MeasuredPackage(
        name="ResNet50, half", sha256="0", weight_bytes=1, package_bytes=2, network=None, pruning=None
    )
    one = four_images()
    return latency_record(
        [[median - 1000, median, median + 1000] for median in medians],
        call_extra_ns=0,
        model_time=False,
        compute_units=units,
        device={"name": "a Mac", "os_version": "15"},
        package=package.model_copy(update={"network": one.network, "pruning": one.pruning}),
    )


def sensitivity(layers: int = 20) -> Sensitivity:
    """The deeper a layer, the less it costs; the first one's outputs are no numbers at 90 %."""
    found = []
    for number in range(layers):
        effects = [Effect(sparsity=s, divergence=s / (number + 1), top1=1 - s / 2) for s in (0.5, 0.75, 0.9)]
        effects[2] = effects[2].model_copy(update={"divergence": None}) if number == 0 else effects[2]
        found.append(LayerSensitivity(layer=f"features.{number}.0", elements=1000, effects=tuple(effects)))
    return Sensitivity(
        network="resnet50", title="ResNet50", data="imagefolder:x", split="train", images=32, dense_top1=0.875,
        layers=tuple(found),
    )  # fmt: skip
