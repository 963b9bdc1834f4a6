"""The report: what it shows follows from the records, and it works in a browser: phone, dark mode, without colour."""

import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import PIL.Image
import pytest

from coreml_prune_bench.bench.suite import shipped_suites
from coreml_prune_bench.records.accuracy import Runtime, read_records
from coreml_prune_bench.records.latency import (
    Device,
    LatencyRecord,
    MeasuredPackage,
    Protocol,
    Round,
    State,
    write_latency_record,
)
from coreml_prune_bench.records.sensitivity import Effect, LayerSensitivity, Sensitivity
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
from coreml_prune_bench.report.page import figure, page
from tests.report.test_accuracy_tables import dense, record

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "results" / "imagenet-sample"


def point(x: float, y: float, *, series: int = 0, label: str = "50%") -> Point:
    return Point(x, y, 1.0, series, label, (label,))


# --- charts


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


# --- what the page says


class Page(HTMLParser):
    """Tags with their attributes, tables as rows of texts, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._cell = False
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

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        self.text += data
        if self._cell:
            self.tables[-1][-1][-1] += data

    def commands(self) -> list[str]:
        return [line for line in self.text.splitlines() if "run_bench.py" in line]


@pytest.fixture(scope="module")
def sample_page() -> str:
    return page(read_records(SAMPLE), [], shipped_suites=shipped_suites())


def latency_record(medians: list[int], *, units: str = "all") -> LatencyRecord:
    """A round for each median, of three calls around it."""
    one = record()
    rounds = [Round(call_ns=(m - 1000, m, m + 1000), model_ns=None, before=State(), after=State()) for m in medians]
    return LatencyRecord(
        status="measured",
        key="0" * 64,
        package=MeasuredPackage(
            name="ResNet50, half", sha256="0", weight_bytes=1, package_bytes=2, network=one.network, pruning=one.pruning
        ),
        device=Device(
            name="a Mac", chip="M", memory_bytes=None, os="macOS", os_version="15", os_build=None,
            neural_engine_cores=None,
        ),
        runtime=Runtime(name="coreml", version="9", compute_units=units),
        protocol=Protocol(rounds=len(medians), predictions=3, seconds=0),
        provenance=one.provenance,
        rounds=tuple(rounds),
    )  # fmt: skip


def test_the_page_needs_nothing_from_outside(sample_page):
    parsed = Page(sample_page)
    addresses = [attributes[name] for _, attributes in parsed.tags for name in ("src", "href") if name in attributes]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert not {tag for tag, _ in parsed.tags} & {"link", "img", "iframe", "object"}
    assert "url(" not in sample_page
    assert "@import" not in sample_page
    policy = next(a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_the_same_records_give_the_same_page(sample_page):
    assert page(read_records(SAMPLE), [], shipped_suites=shipped_suites()) == sample_page


def test_the_pages_tables_are_those_of_the_command(run_bench, sample_page):
    tables = Page(sample_page).tables
    for table, arguments in zip(tables[:3], ([], ["--kind", "size"], ["--compare", "published"]), strict=True):
        _, output, _ = run_bench("table", "--results", SAMPLE, *arguments)
        lines = [line for line in output.splitlines() if line.startswith("| ")]
        expected = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert [row[:-1] for row in table] == expected


def test_every_measured_row_is_a_mark_with_its_numbers(sample_page):
    told = [
        attributes["data-details"] or "" for _, attributes in Page(sample_page).tags if "data-details" in attributes
    ]
    records = [r for r in read_records(SAMPLE) if r.predictions]
    assert len(told) == len(records)
    for one in records:
        assert one.predictions
        hit = [t for t in told if t.startswith(one.network.title) and f"\n{one.pruning.config}\n" in t]
        assert any(f"top-1 {100 * one.predictions.top1:.2f} ±" in text for text in hit)


def test_sparsity_by_layer_is_the_records(sample_page):
    by_layer = [table for table in Page(sample_page).tables if table[0][0] == "Layer"]
    assert len(by_layer) == 3
    wanted = ("resnet50", "sparse-gpt", "Unstructured Sparsity 50%")
    half = next(r for r in read_records(SAMPLE) if (r.network.name, r.pruning.algorithm, r.pruning.config) == wanted)
    table = next(t for t in by_layer if any(row[0] == "layer1.0.conv1" for row in t))
    column = table[0].index("SparseGPT: 50%")
    assert half.package
    expected = {layer.name: f"{100 * layer.sparsity:.1f}" for layer in half.package.layers}
    assert {row[0]: row[column] for row in table[1:]} == expected


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


def test_sensitivity_by_layer_is_charted_and_tabled():
    parsed = Page(page([record()], [], [sensitivity()], shipped_suites=()))
    (table,) = [table for table in parsed.tables if "75 %: error" in table[0]]
    assert table[1] == ["features.0.0", "1,000", "0.5000", "0.7500", "-", "75.0", "62.5", "55.0"]
    assert len(table) == 21
    told = [attributes.get("data-details") or "" for _, attributes in parsed.tags]
    assert "features.19.0 at 75 %\nerror 0.0375\ntop-1 62.5 %" in told


def test_each_row_leads_to_the_commands_that_make_it(sample_page):
    parsed = Page(sample_page)
    places = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    links = [attributes["href"][1:] for tag, attributes in parsed.tags if tag == "a"]
    assert len(links) == 3 * 21
    assert set(links) <= places
    (resnet,) = {line for line in parsed.commands() if "resnet50" in line and "sparse-gpt" in line}
    assert resnet == (
        "python run_bench.py run --suite imagenet --models resnet50 --data imagefolder:../shared/data/imagenet-sample "
        "--weights DIR --algorithms sparse-gpt"
    )
    assert "DIR/resnet50.pth has the SHA-256" in parsed.text


def test_commands_say_what_a_record_knows():
    trials = [record(suite="own suite", trial=trial) for trial in range(2)]
    data = record().data.model_copy(update={"skipped": ("val/a b.jpg",), "spec": "imagefolder:my data"}).model_dump()
    commit = record().provenance.model_copy(update={"git_commit": "a" * 40 + "+"}).model_dump()
    published = record().network.model_copy(update={"weights": "as published"}).model_dump()
    shown = [*trials, record(data=data, provenance=commit, suite="t", network=published)]
    parsed = Page(page(shown, [], shipped_suites=["quick"]))
    assert "python run_bench.py fetch-published" in parsed.commands()
    assert any("--suite 'own suite.toml'" in line and line.endswith("--trials 2") for line in parsed.commands())
    assert any("--data 'imagefolder:my data'" in line and "--skip-bad-images" in line for line in parsed.commands())
    assert f"git checkout {'a' * 40}  # with uncommitted changes" in parsed.text


def test_names_that_look_like_markup_stay_text():
    evil = '<script>alert("1")</script>&"\''
    network = record().network.model_copy(update={"title": evil}).model_dump()
    pruning = record().pruning.model_copy(update={"config": evil, "title": evil}).model_dump()
    parsed = Page(page([record(network=network, pruning=pruning)], [], shipped_suites=()))
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert parsed.tables[0][1][:2] == [evil, evil]
    ET.fromstring(charts.svg(figure([record(network=network, pruning=pruning)], []), alone=True))


def test_what_failed_is_told_with_its_reason():
    failed = record(status="failed", reason="too sparse\nTraceback", package=None, predictions=None, runtime=None)
    text = Page(page([dense(), failed], [], shipped_suites=())).text
    assert "ResNet50, MagnitudePruner, Unstructured Sparsity 50%, trial 1: too sparse" in text
    assert "Traceback" not in text


def test_latency_is_the_samples_by_device_and_compute_units():
    one, other = latency_record([1_000_000, 1_100_000, 1_300_000]), latency_record([2_000_000] * 3, units="cpu_only")
    parsed = Page(page([dense(), record()], [one, other], shipped_suites=()))
    tables = [table for table in parsed.tables if table[0][0] == "Package"]
    assert [table[1][:2] for table in tables] == [["ResNet50, half", "1.100"], ["ResNet50, half", "2.000"]]
    assert "a Mac, macOS 15, coreml, cpu_only" in parsed.text
    assert "Latency" not in Page(page([dense()], [], shipped_suites=())).text


# --- files


@pytest.fixture
def results(tmp_path) -> Path:
    (tmp_path / "results" / "records").mkdir(parents=True)
    for one in (dense(), record()):
        (tmp_path / "results" / "records" / f"{one.key}.json").write_text(one.to_json())
    write_latency_record(tmp_path / "results", latency_record([1_000_000, 1_200_000]))
    return tmp_path / "results"


def test_charts_alone_as_svg_and_png(run_bench, results, tmp_path):
    for format in ("svg", "png"):
        code, output, errors = run_bench("report", tmp_path / f"c.{format}", "--format", format, "--results", results)
        assert (code, output.strip()) == (0, str(tmp_path / f"c.{format}")), errors
    drawing = ET.parse(tmp_path / "c.svg").getroot()
    text = " ".join(drawing.itertext())
    assert "ResNet50" in text
    assert "not pruned" in text
    assert "a Mac, macOS 15, coreml, all" in text
    with PIL.Image.open(tmp_path / "c.png") as image:
        assert image.size == tuple(2 * round(float(drawing.get(name) or 0)) for name in ("width", "height"))
        colors = {color for _, color in image.getcolors(1 << 24)}
    for series in range(2):  # marks are there, in the middle of their smoothed edges
        assert tuple(bytes.fromhex(charts.color(series)[1:])) in colors


def test_an_existing_file_is_kept(run_bench, refused, results, tmp_path):
    (tmp_path / "r.html").write_text("mine")
    assert "r.html exists; --force replaces it" in refused("report", tmp_path / "r.html", "--results", results)
    assert (tmp_path / "r.html").read_text() == "mine"
    assert run_bench("report", tmp_path / "r.html", "--results", results, "--force")[0] == 0
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "results"]


def test_a_place_that_is_none_and_records_that_are_not_there(refused, results, tmp_path):
    assert "is not a folder" in refused("report", tmp_path / "nowhere" / "r.html", "--results", results)
    assert "expected the name of a file" in refused("report", tmp_path, "--results", results)
    assert "no records in" in refused("report", tmp_path / "r.html", "--results", tmp_path)


def test_nothing_measured_is_nothing_to_draw(refused, run_bench, tmp_path):
    failed = record(status="failed", reason="r", package=None, predictions=None, runtime=None)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "one.json").write_text(failed.to_json())
    assert "there is nothing to draw" in refused("report", tmp_path / "c.svg", "--format", "svg", "--results", tmp_path)
    assert run_bench("report", tmp_path / "r.html", "--results", tmp_path)[0] == 0
    assert "What failed" in (tmp_path / "r.html").read_text()


def test_a_report_imports_neither_torch_nor_coremltools(results, tmp_path):
    code = (
        "import sys; sys.argv[1:] = ['report', sys.argv[1], '--results', sys.argv[2]]\n"
        "from coreml_prune_bench.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'coremltools', 'onnxruntime', 'matplotlib', 'pandas'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "r.html"), str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- in a browser

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium that shows the sample's page with latencies; skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if binary is None or shutil.which("chromedriver") is None:
        pytest.skip("no Chromium with its chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    path = tmp_path_factory.mktemp("page") / "report.html"
    latencies = [latency_record([1_000_000, 1_100_000, 1_050_000])]
    path.write_text(page(read_records(SAMPLE), latencies, [sensitivity()], shipped_suites=shipped_suites()))
    driver.show = lambda width=1280, dark=False: _show(driver, path, width, dark)
    yield driver
    driver.quit()


def _show(driver, path: Path, width: int, dark: bool) -> None:
    device = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get(path.as_uri())


def _column(browser, table: int, name: str) -> list[str]:
    return browser.execute_script(
        "const table = document.querySelectorAll('table.sortable')[arguments[0]];"
        "const names = [...table.tHead.rows[0].cells].map(cell => cell.textContent.trim());"
        "return [...table.tBodies[0].rows].map(row => row.cells[names.indexOf(arguments[1])].textContent.trim())",
        table, name,
    )  # fmt: skip


def _head(browser, table: int, name: str):
    selector = f"(//table[contains(@class, 'sortable')])[{table + 1}]//th/button[normalize-space()='{name}']"
    return browser.find_element("xpath", selector)


def test_a_click_on_a_columns_name_sorts_by_it(browser):
    browser.show()
    for name in ("Accuracy", "Compression Ratio"):
        expected = sorted(map(float, _column(browser, 0, name)))
        _head(browser, 0, name).click()
        assert list(map(float, _column(browser, 0, name))) == expected
        _head(browser, 0, name).click()
        assert list(map(float, _column(browser, 0, name))) == expected[::-1]
    models = _column(browser, 0, "Model Name")
    _head(browser, 0, "Model Name").send_keys("\n")
    assert _column(browser, 0, "Model Name") == sorted(models)
    heads = browser.find_elements("css selector", "table.sortable:first-of-type th[aria-sort]")
    assert [head.get_attribute("aria-sort") for head in heads][:1] == ["ascending"]


def test_numbers_with_commas_sort_as_numbers(browser):
    browser.show()
    _head(browser, 1, "weight.bin (bytes)").click()
    sizes = [int(text.replace(",", "")) for text in _column(browser, 1, "weight.bin (bytes)")]
    assert sizes == sorted(sizes)


def test_pointing_at_a_mark_or_going_there_by_key_tells_what_it_is(browser):
    from selenium.webdriver import ActionChains

    browser.show()
    tip = browser.find_element("id", "tip")
    assert not tip.is_displayed()
    mark = browser.find_element("css selector", ".mark[data-details]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(browser).move_to_element(mark).perform()
    assert tip.is_displayed()
    assert tip.text == mark.get_attribute("data-details")
    assert "top-1 80.57 ± 1.50 %" in tip.text
    inside = browser.execute_script(
        "const box = arguments[0].getBoundingClientRect();"
        "return box.left >= 0 && box.right <= innerWidth && box.top >= 0 && box.bottom <= innerHeight",
        tip,
    )
    assert inside
    ActionChains(browser).send_keys("\ue00c").perform()  # Escape
    assert not tip.is_displayed()
    last = browser.find_elements("css selector", ".charts:not(.levels) .mark[data-details]")[-1]
    browser.execute_script("scrollTo(0, document.body.scrollHeight); arguments[0].focus()", last)
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")  # it has scrolled
    assert tip.is_displayed()
    assert tip.text == last.get_attribute("data-details")


def test_the_legend_hides_and_shows_an_algorithm_everywhere(browser):
    browser.show()

    def shown() -> list[bool]:
        marks = browser.find_elements("css selector", ".charts:not(.levels) .mark.s2")
        return [mark.is_displayed() for mark in marks]

    assert len(shown()) == 12
    button = browser.find_element("xpath", "//ul[@class='legend']//button[contains(., 'SparseGPT')]")
    button.click()
    assert (button.get_attribute("aria-pressed"), any(shown())) == ("false", False)
    button.click()
    assert (button.get_attribute("aria-pressed"), all(shown())) == ("true", True)


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(browser, width):
    browser.show(width)
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    small = browser.execute_script(
        "return [...document.querySelectorAll('.charts text')].map(one => "
        "parseFloat(getComputedStyle(one).fontSize) * one.ownerSVGElement.getScreenCTM().a)"
    )
    assert min(small) > 8  # pixels


def _luminance(rgb: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", rgb)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_marks_stand_out_in_the_light_and_in_the_dark(browser, dark):
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for graphics."""
    browser.show(dark=dark)

    def color(selector: str, name: str) -> str:
        script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
        return browser.execute_script(script, selector, name)

    paper = _luminance(color("body", "backgroundColor"))
    assert (paper < 0.05) == dark

    def contrast(rgb: str) -> float:
        bright, dim = sorted((paper, _luminance(rgb)), reverse=True)
        return (bright + 0.05) / (dim + 0.05)

    for selector, name in (("body", "color"), ("p", "color"), ("a", "color"), ("svg .tick", "fill"), ("td", "color")):
        assert contrast(color(selector, name)) >= 4.5, selector
    for series in range(3):
        assert contrast(color(f".charts .s{series} polygon", "fill")) >= 3, series


def test_every_colour_of_a_series_stands_out_on_its_paper():
    for series in range(7):
        for on_black in (False, True):
            ink = charts.color(series, on_black=on_black)
            own = _luminance(str(tuple(bytes.fromhex(ink[1:]))))
            paper = _luminance("22, 24, 27") if on_black else 1.0
            assert (max(own, paper) + 0.05) / (min(own, paper) + 0.05) >= 3, ink


def test_the_browser_asks_for_nothing_and_complains_of_nothing(browser):
    browser.get_log("performance")
    browser.get_log("browser")
    browser.show()
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("file:")] == []
    assert browser.get_log("browser") == []
