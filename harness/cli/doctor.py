"""`doctor`: what this machine can measure."""

from dataclasses import asdict

from coreml_prune_bench.cli.options import JsonOption
from coreml_prune_bench.cli.output import show, show_json, show_line


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
