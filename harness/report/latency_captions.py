"""What stands around a latency table: its caption, and the remarks on single rows."""

from collections import Counter
from collections.abc import Iterable, Sequence

from coreml_prune_bench.latency.placement import DEVICES
from coreml_prune_bench.latency.statistics import summarize
from coreml_prune_bench.records.latency import LatencyRecord, Placement

PUBLISHED_DEVICE = "iPhone 14 Pro (A16), iOS 17, all compute units, Xcode's performance report"
"""What the published medians were measured on and with; how many predictions Xcode makes is not documented."""

_LISTED_OPERATIONS = 8
_APPLE = {"coreml": "Core ML", "coreai": "Core AI"}


def caption(group: Sequence[LatencyRecord], *, published: bool) -> str:
    """What was measured, where and how. published: whether the published medians stand beside ours."""
    first = group[0]
    device, protocol = first.device, first.protocol
    os = f"{device.os} {device.os_version}" + (f" ({device.os_build})" if device.os_build else "")
    # Core ML's version is the system's, which it names itself.
    versions = first.runtime.version if first.runtime.version.startswith(os) else f"{os}, {first.runtime.version}"
    chip = "" if device.chip == "unknown" else f", {device.chip}"
    at_a_time = f", batches of {protocol.batch_size}" if protocol.batch_size > 1 else ""
    at_a_time += f", {protocol.concurrency} processes at a time" if protocol.concurrency > 1 else ""
    match first.runtime.name:
        case "portable":
            by = f"the portable runtime on the processor {device.chip} (not Core ML, and no Apple hardware's time)"
        case "coreai" if device.os != "macOS":
            by = f"Core AI on the processor {device.chip} (no Apple hardware's time)"
        case apple:
            by = f"{_APPLE[apple]} on {device.name}{chip}"
    text = (
        f"Latency in ms, {by}, {versions}: median over {protocol.rounds} rounds of at least "
        f"{protocol.predictions} predictions and {protocol.seconds:g} s each{at_a_time}, with its 95 % interval. "
        "Speed-up: over the dense package, round by round."
    )
    if any(record.placement for record in group):
        text += " Planned: shares of operations (and of estimated cost), which is no observation."
    return text + (f" Published: {PUBLISHED_DEVICE}; another device than here." if published else "")


def remarks(group: Sequence[LatencyRecord]) -> list[str]:
    """Warnings, and what is not planned for the Neural Engine where it may be used."""
    found: list[str] = []
    for record in group:
        of = f"{name(record)}, {record.runtime.compute_units}"
        if record.status == "measured":
            found += [f"{of}: {warning}" for warning in summarize(record).warnings]
        if record.placement and (elsewhere := _elsewhere(record.placement)):
            found.append(f"{of}: {elsewhere}")
    return _shared(found, len(group))


def _shared(remarks: list[str], records: int) -> list[str]:
    """What is true of every row is said once."""
    counts = Counter(remark.split(": ", 1)[1] for remark in remarks)
    everywhere = [text for text, count in counts.items() if count == records > 1]
    return [f"all rows: {text}" for text in everywhere] + [
        remark for remark in remarks if remark.split(": ", 1)[1] not in everywhere
    ]


def _elsewhere(placed: Placement) -> str | None:
    """The operations that are planned elsewhere although some are on the Neural Engine; names with --per-op."""
    if not placed.preferred.get("neural_engine"):
        return None
    off = [operation for operation in placed.operations if operation.preferred != "neural_engine"]
    if not off:
        return None
    told = [
        f"{o.name} ({o.type}, on {DEVICES.get(o.preferred, o.preferred)}, supported by {devices(o.supported)})"
        for o in off[:_LISTED_OPERATIONS]
    ]
    more = f" and {len(off) - len(told)} more (--per-op lists all)" if len(off) > len(told) else ""
    return f"{len(off)} of {len(placed.operations)} operations are planned elsewhere: {', '.join(told)}{more}"


def name(record: LatencyRecord) -> str:
    """Of the package: what it is, or the name of one that no cell made."""
    package = record.package
    if package.network is None or package.pruning is None:
        return package.name
    return f"{package.network.title} {package.pruning.title} {package.pruning.config}"


def devices(names: Iterable[str]) -> str:
    """Devices of a compute plan in words."""
    return ", ".join(DEVICES.get(name, name) for name in names)
