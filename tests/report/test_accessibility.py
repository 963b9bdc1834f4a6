"""The pages hold axe's rules of accessibility, WCAG's among them: phone and desktop, in the light and in the dark."""

from importlib.resources import files

import pytest

from coreml_prune_bench.gating.baseline import from_records
from coreml_prune_bench.gating.history import State
from coreml_prune_bench.gating.history import page as history_page
from tests.factories import accuracy_record
from tests.gating.samples import bits

_RUN = """
const done = arguments[0];
axe.run(document, { resultTypes: ["violations"] }).then((found) => done([found.passes.length, found.violations.map(
  ({ id, help, nodes }) => `${id}: ${help}; ${nodes.slice(0, 5).map((one) => one.target + one.failureSummary)}`)]));
"""


@pytest.fixture(scope="module")
def axe() -> str:
    pytest.importorskip("axe_core_python")
    return (files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")


def _violations(browser, axe: str) -> list[str]:
    browser.execute_script("document.querySelectorAll('details').forEach((one) => one.open = true)")
    browser.settle()
    browser.execute_script(axe)
    browser.set_script_timeout(300)
    passed, violations = browser.execute_async_script(_RUN)
    assert passed > 10
    return violations


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_the_report_has_no_violations(browser, axe, width, dark):
    browser.show(width, dark)
    for button in browser.find_elements("css selector", ".legend button")[1::3]:
        browser.execute_script("arguments[0].click()", button)
    assert _violations(browser, axe) == []


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_a_history_has_no_violations(browser, axe, tmp_path, width, dark):
    baseline, run = bits(lost=60)
    rows = [from_records([accuracy_record(one)]) for one in (baseline, run, baseline)]
    states = [State(f"{n}" * 40, "2026-01-01", f"Commit {n}", one) for n, one in enumerate(rows)]
    (tmp_path / "h.html").write_text(history_page(states, "main"))
    browser.show(width, dark, tmp_path / "h.html")
    assert _violations(browser, axe) == []
