"""Tables of latency records alone: times with intervals, speed-up over the dense package, planned placement.

Rows are plain numbers under stable names; the readable formats choose and word some of them. A number of the portable
runtime stands under a caption that names the processor, and so does every row. Imports neither torch nor coremltools.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate

from coreml_prune_bench.latency.placement import DEVICES, share
from coreml_prune_bench.latency.statistics import Interval, speed_up, summarize
from coreml_prune_bench.published.table import IMAGENET_CLASSES, published_counterpart, read_table
from coreml_prune_bench.records.latency import LatencyRecord, Placement, State
from coreml_prune_bench.report.accuracy_tables import Format

PUBLISHED_DEVICE = "iPhone 14 Pro (A16), iOS 17, all compute units, Xcode's performance report"
"""What the published medians were measured on and with; how many predictions Xcode makes is not documented."""

_IMAGE_SIZE = 224
_LISTED_OPERATIONS = 8

Row = dict[str, Any]


def render(records: Sequence[LatencyRecord], format: Format = "md", *, published: bool = False) -> str:
    """One table for each device, runtime and protocol; csv and json hold every row in one.

    published: the medians of the published table beside ours, with the device that they are from.
    """
    table = rows(records)
    if format == "json":
        return json.dumps(table, indent=2)
    if format == "csv":
        return _csv(table)
    parts = []
    for group in _groups(records):
        worded = _without_empty([_columns(row, published=published) for row in rows(group)])
        style = "latex_booktabs" if format == "latex" else "github"
        body = tabulate(worded, headers="keys", tablefmt=style, disable_numparse=True)
        comment = "% " if format == "latex" else ""
        remarks = "\n".join(f"{comment}{'' if comment else '- '}{remark}" for remark in _remarks(group))
        parts.append(
            f"{comment}{_caption(group, published=published)}\n\n{body}" + (f"\n\n{remarks}" if remarks else "")
        )
    return "\n\n".join(parts)


def rows(records: Sequence[LatencyRecord]) -> list[Row]:
    """One row a record, in their order. Times in milliseconds, drift and shares as fractions; None: not known."""
    dense = {_sibling(record): record for record in records if _is_dense(record) and record.status == "measured"}
    return [_row(record, dense.get(_sibling(record))) for record in records]


def render_operations(record: LatencyRecord, format: Format = "md") -> str:
    """The compute plan of one record, operation by operation.

    The time of an operation is the measured median times its share of the plan's estimated cost: an estimate, since
    Core ML tells no operation's time.
    """
    placed = record.placement
    if placed is None or not placed.operations:
        return f"{_name(record)}, {record.runtime.compute_units}: no compute plan"
    median = summarize(record).median_ns.value if record.rounds else None
    total = sum(operation.cost or 0.0 for operation in placed.operations)
    found: list[Row] = [
        {
            "operation": operation.name,
            "type": operation.type,
            "planned_on": DEVICES.get(operation.preferred, operation.preferred),
            "supported_on": _devices(operation.supported),
            "cost_share": operation.cost / total if operation.cost is not None and total else None,
            "estimated_ms": operation.cost / total * median / 1e6 if operation.cost and total and median else None,
        }
        for operation in placed.operations
    ]
    if format == "json":
        return json.dumps(found, indent=2)
    if format == "csv":
        return _csv(found)
    shown = [
        {
            "Operation": row["operation"],
            "Type": row["type"],
            "Planned on": row["planned_on"],
            "Supported on": row["supported_on"],
            "Estimated cost": _percent(row["cost_share"]),
            "Estimated ms": _number(row["estimated_ms"], ".4f"),
        }
        for row in found
    ]
    style = "latex_booktabs" if format == "latex" else "github"
    caption = (
        f"{'% ' if format == 'latex' else ''}{_name(record)}, {record.runtime.compute_units}: planned, not observed. "
        "Times: the measured median, split by the plan's estimated cost."
    )
    return f"{caption}\n\n{tabulate(shown, headers='keys', tablefmt=style, disable_numparse=True)}"


# --- rows


def _row(record: LatencyRecord, dense: LatencyRecord | None) -> Row:
    package, network, pruning = record.package, record.package.network, record.package.pruning
    found = summarize(record) if record.status == "measured" else None
    faster = speed_up(dense, record) if found and dense and dense is not record else None
    placed = record.placement
    return {
        "package": package.name,
        "model": network.name if network else None,
        "model_title": network.title if network else None,
        "config": pruning.config if pruning else None,
        "algorithm": pruning.algorithm if pruning else None,
        "algorithm_title": pruning.title if pruning else None,
        "sparsity": pruning.sparsity if pruning else None,
        "weight_bytes": package.weight_bytes,
        "runtime": record.runtime.name,
        "runtime_version": record.runtime.version,
        "compute_units": record.runtime.compute_units,
        "device": record.device.name,
        "chip": record.device.chip,
        "os": f"{record.device.os} {record.device.os_version}",
        "batch_size": record.protocol.batch_size,
        "concurrency": record.protocol.concurrency,
        "status": record.status,
        "reason": record.reason,
        "median_ms": _ms(found.median_ns.value) if found else None,
        "median_low_ms": _ms(found.median_ns.low) if found else None,
        "median_high_ms": _ms(found.median_ns.high) if found else None,
        "p90_ms": _ms(found.p90_ns) if found else None,
        "p99_ms": _ms(found.p99_ns) if found else None,
        "min_ms": _ms(found.min_ns) if found else None,
        "call_median_ms": _ms(found.call_median_ns) if found else None,
        "model_time": found.model_time if found else None,
        "throughput": found.throughput if found else None,
        "predictions": found.predictions if found else 0,
        "rounds": len(record.rounds),
        **_speed_up_fields(faster),
        "drift": found.drift if found else None,
        "disagreement": found.disagreement if found else None,
        "compile_ms": _ms(record.compile_ns),
        "cold_load_ms": _ms(record.cold_load_ns),
        "cached_load_ms": _ms(record.cached_load_ns),
        **{f"planned_{device}": share(placed, device) if placed else None for device in DEVICES},
        **{f"planned_{device}_cost": placed.cost.get(device, 0.0) if placed else None for device in DEVICES},
        "state_before": record.rounds[0].before.model_dump() if record.rounds else None,
        "state_after": record.rounds[-1].after.model_dump() if record.rounds else None,
        "published_median_ms": _published_ms(record),
        "warnings": list(found.warnings) if found else [],
    }


def _speed_up_fields(faster: Interval | None) -> Row:
    names = ("speed_up", "speed_up_low", "speed_up_high")
    return dict(zip(names, (faster.value, faster.low, faster.high) if faster else (None, None, None), strict=True))


def _published_ms(record: LatencyRecord) -> float | None:
    """The published median of the same network, sparsity and image size, whatever the device and the algorithm."""
    package = record.package
    if package.network is None or package.pruning is None or package.classes != IMAGENET_CLASSES:
        return None
    if package.image_size != _IMAGE_SIZE:
        return None
    pruning = package.pruning
    row = published_counterpart(read_table(), package.network.title, pruning.sparsity, pruning.settings)
    return row.latency_ms if row else None


def _is_dense(record: LatencyRecord) -> bool:
    return record.package.pruning is not None and record.package.pruning.algorithm == "dense"


def _sibling(record: LatencyRecord) -> tuple[str, ...]:
    """What a record has in common with the dense one that it is compared with: all but the pruning."""
    network = record.package.network
    named = (network.name, network.weights) if network else (record.package.sha256,)
    return (
        *named,
        record.device.model_dump_json(),
        record.runtime.model_dump_json(),
        record.protocol.model_dump_json(),
    )


# --- words


def _groups(records: Iterable[LatencyRecord]) -> list[list[LatencyRecord]]:
    groups: dict[tuple[str, ...], list[LatencyRecord]] = {}
    for record in records:
        key = (record.device.model_dump_json(), record.runtime.name, record.protocol.model_dump_json())
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def _caption(group: Sequence[LatencyRecord], *, published: bool) -> str:
    first = group[0]
    device, protocol = first.device, first.protocol
    os = f"{device.os} {device.os_version}" + (f" ({device.os_build})" if device.os_build else "")
    chip = "" if device.chip == "unknown" else f", {device.chip}"
    at_a_time = f", batches of {protocol.batch_size}" if protocol.batch_size > 1 else ""
    at_a_time += f", {protocol.concurrency} processes at a time" if protocol.concurrency > 1 else ""
    by = (
        f"the portable runtime on the processor {device.chip} (not Core ML, and no Apple hardware's time)"
        if first.runtime.name == "portable"
        else f"Core ML on {device.name}{chip}"
    )
    text = (
        f"Latency in ms, {by}, {os}, {first.runtime.version}: median over {protocol.rounds} rounds of at least "
        f"{protocol.predictions} predictions and {protocol.seconds:g} s each{at_a_time}, with its 95 % interval. "
        "Speed-up: over the dense package, round by round."
    )
    if any(record.placement for record in group):
        text += " Planned: shares of operations (and of estimated cost), which is no observation."
    return text + (f" Published: {PUBLISHED_DEVICE}; another device than here." if published else "")


def _columns(row: Row, *, published: bool) -> dict[str, str]:
    where = f"portable, {row['chip']}" if row["runtime"] == "portable" else row["compute_units"]
    named = {
        "Package": row["model_title"] or row["package"],
        "Config": row["config"] or "-",
        "Algorithm": row["algorithm_title"] or "-",
        "Compute Units": where,
    }
    if row["status"] == "failed":
        return named | {"Median": f"failed: {row['reason']}"}
    beside = {"Published": _number(row["published_median_ms"], ".2f")} if published else {}
    return {
        **named,
        "Median": _with_interval(row["median_ms"], row["median_low_ms"], row["median_high_ms"], ".3f"),
        **beside,
        "Speed-up": _with_interval(row["speed_up"], row["speed_up_low"], row["speed_up_high"], ".2f"),
        "p90": _number(row["p90_ms"], ".3f"),
        "p99": _number(row["p99_ms"], ".3f"),
        "Min": _number(row["min_ms"], ".3f"),
        "Call": _number(row["call_median_ms"], ".3f"),
        "Samples/s": _number(row["throughput"], ",.0f"),
        "Drift": "-" if row["drift"] is None else f"{100 * row['drift']:+.1f} %",
        "Planned on Neural Engine, GPU, CPU": _planned(row),
        "Load cold, cached": f"{_number(row['cold_load_ms'], ',.0f')}, {_number(row['cached_load_ms'], ',.0f')}",
        "State": _state(row["state_before"], row["state_after"]),
    }


def _without_empty(worded: list[dict[str, str]]) -> list[dict[str, str]]:
    """Columns that say something."""
    named = {name for row in worded for name, text in row.items() if text.strip("-, ")}
    return [{name: text for name, text in row.items() if name in named} for row in worded]


def _remarks(group: Sequence[LatencyRecord]) -> list[str]:
    """Warnings, and what is not planned for the Neural Engine where it may be used."""
    remarks: list[str] = []
    for record in group:
        name = f"{_name(record)}, {record.runtime.compute_units}"
        if record.status == "measured":
            remarks += [f"{name}: {warning}" for warning in summarize(record).warnings]
        if record.placement and (elsewhere := _elsewhere(record.placement)):
            remarks.append(f"{name}: {elsewhere}")
    return _shared(remarks, len(group))


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
        f"{o.name} ({o.type}, on {DEVICES.get(o.preferred, o.preferred)}, supported by {_devices(o.supported)})"
        for o in off[:_LISTED_OPERATIONS]
    ]
    more = f" and {len(off) - len(told)} more (--per-op lists all)" if len(off) > len(told) else ""
    return f"{len(off)} of {len(placed.operations)} operations are planned elsewhere: {', '.join(told)}{more}"


def _name(record: LatencyRecord) -> str:
    package = record.package
    if package.network is None or package.pruning is None:
        return package.name
    return f"{package.network.title} {package.pruning.title} {package.pruning.config}"


def _planned(row: Row) -> str:
    if row["planned_cpu"] is None:
        return "-"
    shares = ", ".join(f"{100 * row[f'planned_{device}']:.0f}" for device in DEVICES)
    costs = ", ".join(f"{100 * row[f'planned_{device}_cost']:.0f}" for device in DEVICES)
    return f"{shares} % ({costs} %)"


def _devices(names: Iterable[str]) -> str:
    return ", ".join(DEVICES.get(name, name) for name in names)


def _state(before: Row | None, after: Row | None) -> str:
    if before is None or after is None or (State(**before) == State(**after) == State()):
        return "unknown"
    words = [_state_words(State(**state)) for state in (before, after)]
    return words[0] if words[0] == words[1] else f"{words[0]} → {words[1]}"


def _state_words(state: State) -> str:
    power = {True: "battery", False: "AC", None: None}[state.on_battery]
    if state.on_battery and state.battery_percent is not None:
        power = f"battery {state.battery_percent:.0f} %"
    words = [state.thermal, "low power" if state.low_power else None, power]
    # Where nothing else is known, as on Linux, the load is what there is.
    load = None if state.load_average is None or any(words) else f"load {state.load_average:.1f}"
    return ", ".join(word for word in (*words, load) if word)


def _csv(table: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, table[0] if table else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().rstrip("\n")


def _ms(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e6


def _with_interval(value: float | None, low: float | None, high: float | None, form: str) -> str:
    return "-" if value is None else f"{format(value, form)} ({_number(low, form)} to {_number(high, form)})"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.0f} %"
