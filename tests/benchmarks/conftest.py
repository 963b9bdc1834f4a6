"""Prints, after the benchmarks, what they found: speeds and their ratios in this run, and what loading costs."""

from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    benches = list(session.benchmarks) if session else []
    speeds = [bench for bench in benches if "others" in bench.extra_info]
    loads = [bench.extra_info for bench in benches if "load" in bench.extra_info]
    if speeds:
        terminalreporter.section("images a second, the fastest round of each, two threads")
    for bench in speeds:
        terminalreporter.write_line(_speed(bench.extra_info, bench.stats.min))
    if loads:
        terminalreporter.section("loading in a new process, fastest and largest of several")
    for info in loads:
        terminalreporter.write_line(
            f"{info['network']:20} {info['load']:6}: load {info['load_s']:.2f} s after imports of "
            f"{info['imports_s']:.2f} s, memory grows by {info['growth']:.2f} x the dense Float32 weights"
        )


def _speed(info: dict[str, Any], seconds: float) -> str:
    per_second = {name: info["batch"] / taken for name, taken in info["others"].items()}
    own = info["batch"] / seconds
    return (
        f"{info['network']:20} batch {info['batch']:2}: portable {own:7.1f}, "
        f"torch eager {per_second['torch']:7.1f} (ratio {own / per_second['torch']:.2f}), "
        f"ONNX Runtime on torch's export {per_second['export']:7.1f} (ratio {own / per_second['export']:.2f})"
    )
