"""`doctor`: what this machine can measure."""

import json
from dataclasses import asdict

import typer

from coreml_prune_bench.cli.options import JsonOption


def doctor(as_json: JsonOption = False) -> None:
    """What this machine can measure, what is missing for the rest and what to do, and what would disturb it now."""
    from coreml_prune_bench.latency.doctor import examine

    report = examine()
    if as_json:
        content = asdict(report) | {
            "machine": asdict(report.machine) | {"device": report.machine.device.model_dump()},
            "state": report.state.model_dump(),
            "devices": [asdict(device) | {"facts": device.facts.model_dump()} for device in report.devices],
        }
        typer.echo(json.dumps(content, indent=2))
        return
    machine, device = report.machine, report.machine.device
    typer.echo(f"machine: {device.name}, {device.chip}{', virtual' if machine.virtual else ''}")
    typer.echo(
        f"memory: {_gib(device.memory_bytes)}; cores: {_cores(machine.performance_cores, machine.efficiency_cores)}"
    )
    typer.echo(f"GPU: {_count(machine.gpu_cores)}; Neural Engine: {_count(device.neural_engine_cores)}")
    typer.echo(f"system: {device.os} {device.os_version}, build {device.os_build or 'unknown'}")
    typer.echo(
        f"coremltools {report.coremltools}; its compute devices: {', '.join(report.compute_devices or ['unknown'])}"
    )
    typer.echo(f"state: {_state(report.state.model_dump())}")
    for mobile in report.devices:
        facts = mobile.facts
        typer.echo(f"device: {mobile.name!r}, {facts.name}, {facts.os} {facts.os_version}: {mobile.problem or 'ready'}")
    typer.echo()
    for ability in report.abilities:
        typer.echo(
            f"{'no ' if ability.lacks else 'yes'}  {ability.name}"
            + (f"; needs {ability.lacks}" if ability.lacks else "")
        )
    typer.echo()
    typer.echo("\n".join(f"disturbs: {told}" for told in report.disturbances) or "nothing disturbs a measurement now")


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
