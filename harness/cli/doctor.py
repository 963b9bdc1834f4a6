"""`doctor`: what this machine can measure."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from coreml_prune_bench.cli.options import JsonOption, exit_with_failures
from coreml_prune_bench.cli.output import show, show_json, show_line
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.files import refuse_file
from coreml_prune_bench.core.progress import Reporter


def doctor(
    as_json: JsonOption = False,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="Check on this Mac what is assumed of one: 28 checks, about three minutes."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="With --self-test: write all raw values there; gone on with if stopped."
        ),
    ] = None,
    device_name: Annotated[
        str | None, typer.Option("--device", help="With --self-test: also the iPhone or iPad of that name.")
    ] = None,
) -> None:
    """What this machine can measure, what is missing for the rest and what to do, and what would disturb it now.

    For example: `doctor --self-test --out self-test.json`

    The self-test finds out whether Core ML loads and uses the Neural Engine here, whether a first load is cold, how
    long the Neural Engine takes to wake up, and whether Float16 is right on each compute unit. Names, serial numbers
    and folders are left out of the file, which you can send on. Exit code 1 if something does not hold.
    """
    if self_test:
        _self_test(out, device_name, as_json=as_json)
        return
    if out is not None or device_name is not None:
        raise BenchError("--out and --device belong to --self-test")
    from coreml_prune_bench.latency.doctor import examine

    report = examine()
    if as_json:
        content = asdict(report) | {
            "machine": asdict(report.machine) | {"device": report.machine.device.model_dump()},
            "state": report.state.model_dump(),
            "devices": [asdict(device) | {"facts": device.facts.model_dump()} for device in report.devices],
        }
        show_json(content)
        return
    machine, device = report.machine, report.machine.device
    show_line(f"machine: {device.name}, {device.chip}{', virtual' if machine.virtual else ''}")
    show_line(
        f"memory: {_gib(device.memory_bytes)}; cores: {_cores(machine.performance_cores, machine.efficiency_cores)}"
    )
    show_line(f"GPU: {_count(machine.gpu_cores)}; Neural Engine: {_count(device.neural_engine_cores)}")
    show_line(f"system: {device.os} {device.os_version}, build {device.os_build or 'unknown'}")
    show_line(
        f"coremltools {report.coremltools}; its compute devices: {', '.join(report.compute_devices or ['unknown'])}"
    )
    if report.cache_bytes:
        show_line(f"Core ML's cache of this Python: {report.cache_bytes / 2**20:,.0f} MiB")
    show_line(f"state: {_state(report.state.model_dump())}")
    for mobile in report.devices:
        facts = mobile.facts
        show_line(f"device: {mobile.name!r}, {facts.name}, {facts.os} {facts.os_version}: {mobile.problem or 'ready'}")
    show()
    for ability in report.abilities:
        show_line(
            f"{'no ' if ability.lacks else 'yes'}  {ability.name}"
            + (f"; needs {ability.lacks}" if ability.lacks else "")
        )
    show()
    show("\n".join(f"disturbs: {told}" for told in report.disturbances) or "nothing disturbs a measurement now")


def _self_test(out: Path | None, device: str | None, *, as_json: bool) -> None:
    if out is not None:
        refuse_file(out, f"--out {out}", replace=True)
    from coreml_prune_bench.latency.self_test.check import CHECKS
    from coreml_prune_bench.latency.self_test.run import SelfTests

    reporter = Reporter()
    with reporter.steps("self-test", len(CHECKS)) as steps:
        found = SelfTests(device=device).run(steps, out)
    if as_json:
        show_json(found.model_dump(mode="json"))
    else:
        for one in found.checks:
            reason = f": {one.reason}" if one.reason else ""
            show_line(f"{one.outcome:14}  {one.number:2} {one.name}, {one.assumes}{reason}")
        counts = Counter(one.outcome for one in found.checks)
        show()
        show_line(f"{', '.join(f'{count} {outcome}' for outcome, count in counts.items())}")
    if out is not None:
        reporter.say(f"raw values in {out}; names, serial numbers and folders are left out")
    if found.failed:
        exit_with_failures([f"{one.number} {one.name}: {one.reason}" for one in found.failed])


def _gib(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else f"{size_bytes / 2**30:.0f} GiB"


def _cores(performance: int | None, efficiency: int | None) -> str:
    if efficiency is None:
        return str(performance or "unknown")
    return f"{performance} performance, {efficiency} efficiency"


def _count(cores: int | None) -> str:
    return "unknown or none" if cores is None else f"{cores} cores"


def _state(state: dict[str, object]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {'unknown' if value is None else value}" for name, value in state.items()
    )
