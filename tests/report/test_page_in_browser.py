"""The page works in a browser: phone, dark mode, without colour."""

import json
import re

import pytest

from coreml_prune_bench.report import charts


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
    button = browser.find_element("xpath", "//ul[@aria-label='Algorithms']//button[contains(., 'SparseGPT')]")
    button.click()
    assert (button.get_attribute("aria-pressed"), any(shown())) == ("false", False)
    button.click()
    assert (button.get_attribute("aria-pressed"), all(shown())) == ("true", True)


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
    lines = "return [...document.querySelectorAll('polyline.front')].map((one) => one.getAttribute('points'))"
    as_drawn = browser.execute_script(lines)
    browser.execute_script("document.getElementById('only').focus()")
    browser.find_element("id", "only").click()
    whole = _shown_rows(browser, 0)
    _toggle(browser, "SparseGPT")
    rest = _shown_rows(browser, 0)
    assert "SparseGPT" not in {row[1] for row in rest}
    browser.find_element("id", "only").click()
    without = _shown_rows(browser, 0)
    assert set(rest) == _front(without)
    moved = browser.execute_script(lines)
    for before, after in zip(as_drawn, moved, strict=True):
        assert before != after
    for chart, line in zip(browser.find_elements("css selector", ".charts:not(.levels) svg"), moved, strict=False):
        labels = [one for one in chart.find_elements("css selector", "text.label") if one.is_displayed()]
        assert 0 < len(labels) <= (len(line.split()) + 1) // 2  # a corner lies between two packages
    _toggle(browser, "SparseGPT")
    assert set(whole) == _front(_shown_rows(browser, 0))
    assert browser.execute_script(lines) == as_drawn  # as the charts alone have it, without a script


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
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.show()
        rows = browser.find_elements("css selector", "table.sortable tbody tr:not(details tr)")
        marks = browser.find_elements("css selector", ".mark[data-x]")
        dead = browser.find_elements("css selector", ".tools, .networks, .only")
        assert all(one.is_displayed() for one in [*rows, *marks])
        assert not any(one.is_displayed() for one in dead)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


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
    for series in (0, 2, 3):
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
