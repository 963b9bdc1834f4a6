"""Prints, after the benchmarks, images a second of the portable runtime and of torch, and their ratio in this run."""

from collections import defaultdict

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    speeds: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for bench in session.benchmarks if session else []:
        if "engine" in bench.extra_info:
            info = bench.extra_info
            speeds[info["network"], info["batch"]][info["engine"]] = info["batch"] / bench.stats.median
    if not speeds:
        return
    terminalreporter.section("images a second, median")
    for (network, batch), speed in speeds.items():
        if speed.keys() >= {"portable", "torch"}:
            terminalreporter.write_line(
                f"{network:20} batch {batch:2}: portable {speed['portable']:7.1f}, torch eager {speed['torch']:7.1f}, "
                f"ratio {speed['portable'] / speed['torch']:.2f}"
            )
