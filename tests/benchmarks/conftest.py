"""Prints, after the benchmarks, what they found: speeds and their ratios in this run, and what loading costs."""

from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    benches = list(session.benchmarks) if session else []
    speeds = [bench for bench in benches if "others" in bench.extra_info]
    loads = [bench.extra_info for bench in benches if "load" in bench.extra_info]
    evaluations = [bench for bench in benches if "evaluated" in bench.extra_info]
    together = [bench for bench in benches if "together" in bench.extra_info]
    beside = [bench.extra_info for bench in benches if "beside" in bench.extra_info]
    if speeds:
        terminalreporter.section("images a second, the fastest round of each, two threads")
    for bench in speeds:
        terminalreporter.write_line(_speed(bench.extra_info, bench.stats.min))
    if evaluations or together:
        terminalreporter.section("from JPEG files to top-1, images a second, the fastest round of each")
    for bench in evaluations:
        terminalreporter.write_line(_evaluation(bench.extra_info, bench.stats.min))
    for bench in together:
        terminalreporter.write_line(_together(bench.extra_info, bench.stats.min))
    trainings = [bench.extra_info for bench in benches if "training" in bench.extra_info]
    if trainings:
        terminalreporter.section("training, images a second, the fastest round of each")
    for info in trainings:
        terminalreporter.write_line(_training(info))
    if beside:
        terminalreporter.section("beside other busy programs, batches a second, the fastest round of each")
    for info in beside:
        for line in _beside(info):
            terminalreporter.write_line(line)
    for info in (bench.extra_info for bench in benches if "latency_overhead" in bench.extra_info):
        terminalreporter.section("measuring latency")
        terminalreporter.write_line(
            f"outside of predictions of {info['prediction_ms']} ms: {100 * info['latency_overhead']:.1f} % of the time"
        )
    for info in (bench.extra_info for bench in benches if "latency_bytes" in bench.extra_info):
        terminalreporter.write_line(f"kept of each prediction: {info['latency_bytes']:.1f} bytes, the two samples")
    if loads:
        terminalreporter.section("loading in a new process, fastest and largest of several")
    for info in loads:
        terminalreporter.write_line(
            f"{info['network']:20} {info['load']:6}: load {info['load_s']:.2f} s after imports of "
            f"{info['imports_s']:.2f} s, memory grows by {info['growth']:.2f} x the dense Float32 weights"
        )


_OTHERS = {
    "torch": "torch eager",
    "export": "ONNX Runtime on torch's export",
    "mlpackage": "the .mlpackage",
    "apple": "Apple's runtime for the processor",
}


def _speed(info: dict[str, Any], seconds: float) -> str:
    own = info["batch"] / seconds
    way = "side by side" if info.get("many") else "in one run"
    others = ", ".join(
        f"{_OTHERS[name]} {info['batch'] / taken:7.1f} (ratio {own * taken / info['batch']:.2f})"
        for name, taken in info["others"].items()
    )
    return f"{info['network']:20} batch {info['batch']:2}: portable, {way} {own:7.1f}, {others}"


def _training(info: dict[str, Any]) -> str:
    speeds = dict(info["images_a_second"])
    own = speeds.pop("ours")
    others = ", ".join(f"{way} {speed:.1f} (ratio {own / speed:.2f})" for way, speed in speeds.items())
    return f"{info['network']:20} on {info['device']}: ours {own:.1f}, {others}"


def _evaluation(info: dict[str, Any], warm_s: float) -> str:
    eager, cold, warm = (info["images"] / seconds for seconds in (info["eager_s"], info["cold_s"], warm_s))
    return (
        f"{info['evaluated']:20} {info['images']} images: torch eager with a DataLoader {eager:6.1f}, package with no "
        f"images prepared {cold:6.1f} (ratio {cold / eager:.2f}), with images prepared {warm:6.1f} "
        f"(ratio {warm / eager:.2f})"
    )


def _together(info: dict[str, Any], together_s: float) -> str:
    one, together = info["images"] / info["one_s"], info["images"] / together_s
    return (
        f"{info['together']:20} {info['images']} images, decoded: one package {one:6.1f}, {info['packages']} packages "
        f"in one pass {together:6.1f} (time of one x {together_s / info['one_s']:.2f})"
    )


def _beside(info: dict[str, Any]) -> list[str]:
    idle = info["busy"]["0"]
    lines = []
    for count, found in info["busy"].items():
        ways = [f"{way} {speed:6.2f} ({speed / idle[way]:.2f} of idle)" for way, speed in found.items()]
        ratio = found["ours"] / found["default"]
        lines.append(f"{info['beside']:10} beside {count}: {', '.join(ways)}, ours to default {ratio:.2f}")
    return lines
