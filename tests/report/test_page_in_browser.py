"""The page works in a browser: phone, dark mode, without colour."""

import json
import re
import shutil
from pathlib import Path

import pytest

from coreml_prune_bench.bench.suite import shipped_suites
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.report import charts
from coreml_prune_bench.report.page import page
from tests.report.samples import SAMPLE, latencies, sensitivity

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
    measured = [latencies([1_000_000, 1_100_000, 1_050_000])]
    path.write_text(page(read_records(SAMPLE), measured, [sensitivity()], shipped_suites=shipped_suites()))
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
        "const tables = document.querySelectorAll('section:not([aria-labelledby=answer-title]) table.sortable');"
        "const table = tables[arguments[0]];"
        "const names = [...table.tHead.rows[0].cells].map(cell => cell.textContent.trim());"
        "return [...table.tBodies[0].rows].map(row => row.cells[names.indexOf(arguments[1])].textContent.trim())",
        table, name,
    )  # fmt: skip


def _head(browser, table: int, name: str):
    others = "//section[not(@aria-labelledby='answer-title')]//table[contains(@class, 'sortable')]"
    selector = f"({others})[{table + 1}]//th/button[normalize-space()='{name}']"
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
    heads = browser.find_elements("css selector", "table.sortable th[aria-sort]")
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


@pytest.mark.parametrize("width", [375, 1280])
def test_head_and_config_stay_where_a_table_is_scrolled(browser, width):
    browser.show(width)
    places = """
    const box = [...document.querySelectorAll('section:not([aria-labelledby=answer-title]) .scroll')][0];
    box.style.maxHeight = '12rem';
    const told = () => ['thead th.config', 'tbody tr:last-child td.config'].map(
      (one) => box.querySelector(one).getBoundingClientRect());
    box.scrollTo(0, 0);
    box.scrollTo(200, 150);
    const [head, cell] = told(), own = box.getBoundingClientRect();
    return [head.top - own.top, head.left - own.left, cell.left - head.left, own.width, cell.width];
    """
    top, left, apart, wide, cell = browser.execute_script(places)
    assert abs(top) < 3
    assert abs(apart) < 1
    assert 0 <= left <= wide - cell
    if width < 600:
        assert left < 3


def test_a_table_is_downloaded_as_csv(browser):
    browser.show()
    text = browser.execute_script("return csvOf(document.querySelector('section:nth-of-type(3) table.sortable'))")
    assert text.startswith("Model Name,Config,")
    assert "commands" not in text
    for button in browser.find_elements("css selector", "button.csv")[:1]:
        button.click()
    assert browser.get_log("browser") == []
