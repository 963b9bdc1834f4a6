"""A browser for the page."""

import shutil
from pathlib import Path

import pytest

from coreml_prune_bench.bench.suite import shipped_suites
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.report.page import page
from tests.report.samples import SAMPLE, latencies, sensitivity

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


_SETTLE = """
const done = arguments[0], frame = () => new Promise(requestAnimationFrame);
(async () => {
  const charts = Array.from(document.querySelectorAll(".chart"));
  do { await frame(); } while (charts.some((one) => one.checkVisibility() && !views.get(one)));
  for (const one of charts) await views.get(one)?.runAsync();
  await frame();
  await frame();
})().then(done);
"""
"""Waits until every chart in sight or below is drawn as it is to be."""


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
    driver.set_script_timeout(60)
    driver.show = lambda width=1280, dark=False, page=path: _show(driver, page, width, dark)
    driver.settle = lambda: driver.execute_async_script(_SETTLE)
    yield driver
    driver.quit()


def _show(driver, path: Path, width: int, dark: bool) -> None:
    device = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get(path.as_uri())
    driver.settle()
