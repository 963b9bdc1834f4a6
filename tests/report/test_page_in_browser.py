"""The page works in a browser: phone, dark mode, without colour."""

import itertools
import json
import re

import pytest

from coreml_prune_bench.report.looks import color as color_of

_MARKS = ".chart:not(.levels) path[aria-roledescription=point]"


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
    mark = browser.find_element("css selector", _MARKS)
    details = "return arguments[0].__data__.datum.details"
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(browser).move_to_element(mark).perform()
    assert tip.is_displayed()
    assert tip.text == browser.execute_script(details, mark)
    assert mark.get_attribute("aria-label") == tip.text
    assert "top-1 80.57 ± 1.50 %" in tip.text
    inside = browser.execute_script(
        "const box = arguments[0].getBoundingClientRect();"
        "return box.left >= 0 && box.right <= innerWidth && box.top >= 0 && box.bottom <= innerHeight",
        tip,
    )
    assert inside
    ActionChains(browser).send_keys("\ue00c").perform()  # Escape
    assert not tip.is_displayed()
    last = browser.find_elements("css selector", ".chart:not(.levels) path[tabindex]")[-1]
    browser.execute_script("scrollTo(0, document.body.scrollHeight); arguments[0].focus()", last)
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")  # it has scrolled
    assert tip.is_displayed()
    assert tip.text == browser.execute_script(details, last)


def _charted(browser) -> list[list[tuple[int, float, float, str]]]:
    """Of each chart of accuracy against size the marks that show: series, MB, top-1 and label."""
    found = browser.execute_script(
        "return [...document.querySelectorAll('[data-network] .chart:not(.levels)')].map((chart) =>"
        "[...chart.querySelectorAll('path[aria-roledescription=point]')].filter((one) => one.checkVisibility())"
        ".map((one) => one.__data__.datum).map((one) => [one.series, one.x, one.y, one.label]))"
    )
    return [[tuple(one) for one in chart] for chart in found]


def test_the_legend_hides_and_shows_an_algorithm_everywhere(browser):
    browser.show()

    def shown() -> int:
        browser.settle()
        return sum(series == 2 for chart in _charted(browser) for series, *_ in chart)

    assert shown() == 12
    button = browser.find_element("xpath", "//ul[@aria-label='Algorithms']//button[contains(., 'SparseGPT')]")
    button.click()
    assert (button.get_attribute("aria-pressed"), shown()) == ("false", 0)
    button.click()
    assert (button.get_attribute("aria-pressed"), shown()) == ("true", 12)


def _toggle(browser, *names: str) -> None:
    from selenium.webdriver import Keys

    for name in names:
        button = browser.find_element("xpath", f"//div[@class='show']//button[normalize-space()='{name}']")
        browser.execute_script("arguments[0].focus()", button)
        button.send_keys(Keys.SPACE)


def _shown_rows(browser, table: int) -> list[tuple[str, str, float, float]]:
    """Model, algorithm, MB and top-1."""
    rows = browser.execute_script(
        "const tables = document.querySelectorAll('section:not([aria-labelledby=answer-title]) table.sortable');"
        "return [...tables[arguments[0]].tBodies[0].rows].filter((row) => row.checkVisibility())"
        ".map((row) => [...row.cells].map((cell) => cell.textContent.trim()).concat(row.dataset.x, row.dataset.y))",
        table,
    )
    return [(row[0], row[2], float(row[-2]), float(row[-1])) for row in rows]


def test_tables_show_the_networks_and_algorithms_that_are_chosen_by_key(browser):
    browser.show(375)
    everything = _shown_rows(browser, 0)
    assert len(everything) == 21
    _toggle(browser, "MobileNetv2-1.0", "SparseGPT")
    for table in (0, 1):
        wanted = [row for row in everything if row[0] != "MobileNetv2-1.0" and row[1] != "SparseGPT"]
        assert _shown_rows(browser, table) == wanted
    assert browser.find_element("id", "count").text == f"{len(wanted)} of 21 rows"
    assert browser.find_element("id", "answer-note").is_displayed()
    headings = [one.text for one in browser.find_elements("css selector", "section[aria-labelledby=answer-title] h3")]
    assert len(headings) > len([text for text in headings if text])
    assert not any(text.startswith("MobileNetv2") for text in headings)
    csv = browser.execute_script("return csvOf(document.querySelectorAll('section:nth-of-type(3) table.sortable')[0])")
    assert len(csv.splitlines()) == 1 + len(wanted)
    _toggle(browser, "MobileNetv2-1.0", "SparseGPT")
    assert _shown_rows(browser, 0) == everything


def _front(rows: list[tuple[str, str, float, float]]) -> set[tuple[str, str, float, float]]:
    """By the definition: no other of the same network is at most as large and at least as good, and not the same."""
    return {
        one
        for one in rows
        if not any(
            o[0] == one[0] and o[2] <= one[2] and o[3] >= one[3] and (o[2], o[3]) != (one[2], one[3]) for o in rows
        )
    }


def test_the_front_is_found_anew_without_what_is_hidden(browser):
    browser.show()
    as_drawn = _labels(browser)
    browser.execute_script("document.getElementById('only').focus()")
    browser.find_element("id", "only").click()
    whole = _shown_rows(browser, 0)
    _toggle(browser, "SparseGPT")
    rest = _shown_rows(browser, 0)
    assert "SparseGPT" not in {row[1] for row in rest}
    browser.find_element("id", "only").click()
    without = _shown_rows(browser, 0)
    assert set(rest) == _front(without)
    browser.settle()
    moved = _labels(browser)
    for before, after, marks in zip(as_drawn, moved, _charted(browser), strict=True):
        assert before != after
        rows = [("", "", x, y) for _, x, y, _ in marks]
        assert {(x, y) for *_, x, y in _front(rows)} == {(x, y) for _, x, y in after}
    _toggle(browser, "SparseGPT")
    assert set(whole) == _front(_shown_rows(browser, 0))
    browser.settle()
    assert _labels(browser) == as_drawn


def _labels(browser) -> list[list[tuple[str, float, float]]]:
    """Of each chart the labels of its front, those that find no place too."""
    found = browser.execute_script(
        "return [...document.querySelectorAll('[data-network] .chart:not(.levels)')].map((chart) =>"
        "[...chart.querySelectorAll('.labels_marks text')].map((one) => one.__data__.datum)"
        ".map((one) => [one.label, one.x, one.y]))"
    )
    return [[tuple(one) for one in chart] for chart in found]


@pytest.mark.parametrize("width", [375, 1280])
def test_labels_cover_neither_each_other_nor_a_mark(browser, width):
    browser.show(width)
    boxes = """
    const box = (one) => { const at = one.getBoundingClientRect(); return [at.left, at.top, at.right, at.bottom]; };
    const shown = (one) => one.getAttribute("opacity") !== "0" && one.style.opacity !== "0";
    return [...document.querySelectorAll('[data-network] .chart:not(.levels)')].map((chart) => [
      [...chart.querySelectorAll('.labels_marks text')].filter(shown).map(box),
      [...chart.querySelectorAll('path[aria-roledescription=point]')].map(box)]);
    """
    for labels, marks in browser.execute_script(boxes):
        assert labels
        for one, other in [*itertools.combinations(labels, 2), *itertools.product(labels, marks)]:
            across, along = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
            assert min(across, along) < 3  # pixels: a line of text is higher than its letters


def test_columns_are_chosen(browser):
    browser.show(375)
    tools = browser.find_element("css selector", "section:nth-of-type(3) .tools")
    tools.find_element("css selector", "summary").send_keys("\n")
    box = tools.find_element("xpath", ".//label[normalize-space()='Pruned Scope']/input")
    box.send_keys(" ")
    script = "return csvOf(document.querySelector('section:nth-of-type(3) table.sortable')).split('\\n')[0]"
    assert "Pruned Scope" not in browser.execute_script(script)
    head = "//section[3]//th[normalize-space()='Pruned Scope']"
    assert not browser.find_element("xpath", head).is_displayed()
    box.send_keys(" ")
    assert browser.find_element("xpath", head).is_displayed()


def test_without_a_script_everything_shows(browser):
    browser.show()
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(browser.current_url)
        rows = browser.find_elements("css selector", "table.sortable tbody tr:not(details tr)")
        marks = browser.find_elements("css selector", ".chart:not(.levels) noscript path[aria-roledescription=point]")
        assert len(marks) >= 21
        dead = browser.find_elements("css selector", ".tools, .networks, .only")
        assert all(one.is_displayed() for one in [*rows, *marks])
        assert not any(one.is_displayed() for one in dead)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(browser, width):
    browser.show(width)
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    browser.settle()
    assert browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    small = browser.execute_script(
        "return [...document.querySelectorAll('.chart svg text')].map(one => "
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

    for selector, name in (
        ("body", "color"),
        ("p", "color"),
        ("a", "color"),
        (".role-axis-label text", "fill"),
        ("td", "color"),
    ):
        assert contrast(color(selector, name)) >= 4.5, selector
    fills = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((one) => getComputedStyle(one).fill)", _MARKS
    )
    assert len(set(fills)) == 3
    assert all(contrast(fill) >= 3 for fill in fills)


def test_every_colour_of_a_series_stands_out_on_its_paper():
    for series in range(7):
        for on_black in (False, True):
            ink = color_of(series, on_black=on_black)
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
