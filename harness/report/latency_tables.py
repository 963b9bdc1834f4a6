"""Tables of latency records alone: times with intervals, speed-up over the dense package, planned placement.

Rows are plain numbers under stable names; the readable formats choose and word some of them. A number of the portable
runtime stands under a caption that names the processor, and so does every row. Imports neither torch nor coremltools.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from coreml_prune_bench.latency.placement import DEVICES, share
from coreml_prune_bench.latency.statistics import (
    TOTAL,
    Interval,
    Summary,
    energy_mj,
    of_one_run,
    speed_up,
    summarize,
    wake_ns,
)
from coreml_prune_bench.models.imagenet import IMAGENET_CLASSES
from coreml_prune_bench.published.table import published_counterpart, read_table
from coreml_prune_bench.records.accuracy import Network, Pruning
from coreml_prune_bench.records.latency import IDLE_SECONDS, LatencyRecord, Memory, Placement, PlannedOperation, State
from coreml_prune_bench.report.formats import (
    Column,
    Format,
    cells,
    number,
    percent,
    values,
    write_cells,
    write_values,
)
from coreml_prune_bench.report.latency_captions import caption, devices, name, remarks

_IMAGE_SIZE = 224

_LATENCY, _BESIDE_PUBLISHED, _OPERATIONS = "latency", "beside the published", "operations"
_BOTH = (_LATENCY, _BESIDE_PUBLISHED)
_WAKES, _ENERGY, _MEMORY = "Wakes after 1, 5, 30 s", "mJ a Prediction", "Peak Memory, MiB"
_MEDIAN = 5
"""The place of the column that says why a row failed, too."""


@dataclass(frozen=True)
class LatencyRow:
    """A record, and that of the dense package that it is compared with; None where there is none."""

    record: LatencyRecord
    dense: LatencyRecord | None

    @cached_property
    def summary(self) -> Summary | None:
        return summarize(self.record) if self.record.status == "measured" else None

    @cached_property
    def energy(self) -> dict[str, Interval]:
        """mJ a prediction, by component and in total; empty where it was not measured."""
        return energy_mj(self.record.energy)

    @cached_property
    def speed_up(self) -> Interval | None:
        if self.summary is None or self.dense is None or self.dense is self.record:
            return None
        return speed_up(self.dense, self.record)


def render(
    records: Sequence[LatencyRecord], format: Format = "md", *, published: bool = False, width: int | None = None
) -> str:
    """One table for each device, runtime and protocol; csv and json hold every row in one.

    published: the medians of the published table beside ours, with the device that they are from. width: of a terminal
    that shows them.
    """
    if format == "json" or format == "csv":
        return write_values(rows(records), format)
    table = _BESIDE_PUBLISHED if published else _LATENCY
    return "\n\n".join(
        write_cells(
            _without_empty([_cells(row, table) for row in latency_rows(group)]),
            format,
            caption=caption(group, published=published),
            remarks=[*remarks(group), *_of_other_runs(group)],
            width=width,
        )
        for group in _groups(records)
    )


def _of_other_runs(group: Sequence[LatencyRecord]) -> list[str]:
    """Why some rows have no speed-up though their network's dense package was timed."""
    apart = [
        name(row.record)
        for row in latency_rows(group)
        if row.dense and row.record.status == "measured" and not of_one_run(row.dense, row.record)
    ]
    if not apart:
        return []
    return [
        f"{', '.join(dict.fromkeys(apart))}: no speed-up, since another run timed the dense package; `latency --again` "
        "times both in turns"
    ]


def _cells(row: LatencyRow, table: str) -> dict[str, str]:
    """Of a failed row, what it is and why it failed."""
    failed = row.record.status == "failed"
    return cells([column for column in COLUMNS if column.place <= _MEDIAN] if failed else COLUMNS, row, table)


def rows(records: Sequence[LatencyRecord]) -> list[dict[str, Any]]:
    """The values of `COLUMNS` by name, a row a record, in their order: what csv and json hold."""
    return [values(COLUMNS, row) for row in latency_rows(records)]


def latency_rows(records: Sequence[LatencyRecord]) -> list[LatencyRow]:
    """Each record with the dense one of its network, device, runtime and protocol, if that is among them."""
    dense = {_sibling(record): record for record in records if _is_dense(record) and record.status == "measured"}
    return [LatencyRow(record, dense.get(_sibling(record))) for record in records]


def besides(records: Sequence[LatencyRecord]) -> list[dict[str, str]]:
    """What was measured of each besides latency, in words under the headers of tables; those that say something."""
    worded = [cells(_BESIDES, row, _LATENCY) for row in latency_rows(records)]
    return _without_empty(worded)


def render_operations(record: LatencyRecord, format: Format = "md", *, width: int | None = None) -> str:
    """The compute plan of one record, operation by operation.

    The time of an operation is the measured median times its share of the plan's estimated cost: an estimate, since
    Core ML tells no operation's time.
    """
    placed = record.placement
    if placed is None or not placed.operations:
        return f"{name(record)}, {record.runtime.compute_units}: no compute plan"
    total = sum(operation.cost or 0.0 for operation in placed.operations)
    columns = _operation_columns(total, summarize(record).median_ns.value if record.rounds else None)
    if format == "json" or format == "csv":
        return write_values([values(columns, operation) for operation in placed.operations], format)
    text = (
        f"{name(record)}, {record.runtime.compute_units}: planned, not observed. "
        "Times: the measured median, split by the plan's estimated cost."
    )
    table = [cells(columns, operation, _OPERATIONS) for operation in placed.operations]
    return write_cells(table, format, caption=text, width=width)


def _operation_columns(total: float, median_ns: float | None) -> list[Column[PlannedOperation]]:
    """total: the cost of all operations, in the plan's own unit."""

    def share_of_cost(operation: PlannedOperation) -> float | None:
        return operation.cost / total if operation.cost is not None and total else None

    def estimated_ms(operation: PlannedOperation) -> float | None:
        return operation.cost / total * median_ns / 1e6 if operation.cost and total and median_ns else None

    def preferred(operation: PlannedOperation) -> str:
        return DEVICES.get(operation.preferred, operation.preferred)

    shown = (_OPERATIONS,)
    return [
        Column("operation", lambda operation: operation.name, "Operation", tables=shown),
        Column("type", lambda operation: operation.type, "Type", tables=shown),
        Column("planned_on", preferred, "Planned on", tables=shown),
        Column("supported_on", lambda operation: devices(operation.supported), "Supported on", tables=shown),
        Column("cost_share", share_of_cost, "Estimated cost", percent(".0f"), shown),
        Column("estimated_ms", estimated_ms, "Estimated ms", number(".4f"), shown),
    ]


# --- columns


def _of_network(value: Callable[[Network], Any]) -> Callable[[LatencyRow], Any]:
    return lambda row: value(row.record.package.network) if row.record.package.network else None


def _of_pruning(value: Callable[[Pruning], Any]) -> Callable[[LatencyRow], Any]:
    return lambda row: value(row.record.package.pruning) if row.record.package.pruning else None


def _of_summary(value: Callable[[Summary], Any]) -> Callable[[LatencyRow], Any]:
    return lambda row: value(row.summary) if row.summary else None


def _of_speed_up(value: Callable[[Interval], Any]) -> Callable[[LatencyRow], Any]:
    return lambda row: value(row.speed_up) if row.speed_up else None


def _of_placement(value: Callable[[Placement], Any]) -> Callable[[LatencyRow], Any]:
    return lambda row: value(row.record.placement) if row.record.placement else None


def _of_memory(value: Callable[[Memory], Any]) -> Callable[[LatencyRow], Any]:
    return lambda row: value(row.record.memory) if row.record.memory else None


_OF_INTERVAL: dict[str, Callable[[Interval], float]] = {
    "mj": lambda found: found.value,
    "low_mj": lambda found: found.low,
    "high_mj": lambda found: found.high,
}


def _of_energy(value: Callable[[Interval], float], component: str) -> Callable[[LatencyRow], Any]:
    return lambda row: value(row.energy[component]) if component in row.energy else None


def _wake_after(seconds: float) -> Callable[[LatencyRow], Any]:
    return lambda row: _ms(wake_ns(row.record, seconds))


def _planned_share(device: str) -> Callable[[LatencyRow], Any]:
    return _of_placement(lambda placed: share(placed, device))


def _planned_cost(device: str) -> Callable[[LatencyRow], Any]:
    return _of_placement(lambda placed: placed.cost.get(device, 0.0))


def _package(row: LatencyRow) -> str:
    package = row.record.package
    return package.network.title if package.network else package.name


def _where(row: LatencyRow) -> str:
    record = row.record
    return f"portable, {record.device.chip}" if record.runtime.name == "portable" else record.runtime.compute_units


def _median(row: LatencyRow) -> str:
    if row.record.status == "failed":
        return f"failed: {row.record.reason}"
    return _with_interval(row.summary.median_ns if row.summary else None, ".3f", unit=1e6)


def _woken(row: LatencyRow) -> str:
    return ", ".join(number(".1f")(_wake_after(seconds)(row)) for seconds in IDLE_SECONDS if seconds)


def _peak(row: LatencyRow) -> str | None:
    if row.record.memory is None:
        return None
    return ", ".join(f"{peak / 2**20:.0f}" for peak in row.record.memory.model_dump().values())


def _load(row: LatencyRow) -> str:
    milliseconds = number(",.0f")
    if row.record.cold_loads_ns:
        cold = sorted(row.record.cold_loads_ns)
        times = f"{milliseconds(_ms(cold[0]))} to {milliseconds(_ms(cold[-1]))}"
        return f"{times}, {milliseconds(_ms(row.record.cached_load_ns))}"
    return f"{milliseconds(_ms(row.record.cold_load_ns))}, {milliseconds(_ms(row.record.cached_load_ns))}"


def _planned(placed: Placement) -> str:
    shares = ", ".join(f"{100 * share(placed, device):.0f}" for device in DEVICES)
    costs = ", ".join(f"{100 * placed.cost.get(device, 0.0):.0f}" for device in DEVICES)
    return f"{shares} % ({costs} %)"


def _for_readers(header: str, value: Callable[[LatencyRow], Any], place: int) -> Column[LatencyRow]:
    return Column(None, value, header, tables=_BOTH, place=place)


def _milliseconds(name: str, ns: Callable[[Summary], float | None], header: str, place: int) -> Column[LatencyRow]:
    return Column(name, _of_summary(lambda found: _ms(ns(found))), header, number(".3f"), _BOTH, place)


COLUMNS: list[Column[LatencyRow]] = [
    _for_readers("Package", _package, 1),
    Column("package", lambda row: row.record.package.name),
    Column("model", _of_network(lambda network: network.name)),
    Column("model_title", _of_network(lambda network: network.title)),
    Column("config", _of_pruning(lambda pruning: pruning.config), "Config", tables=_BOTH, place=2),
    Column("algorithm", _of_pruning(lambda pruning: pruning.algorithm)),
    Column("algorithm_title", _of_pruning(lambda pruning: pruning.title), "Algorithm", tables=_BOTH, place=3),
    Column("sparsity", _of_pruning(lambda pruning: pruning.sparsity)),
    Column("weight_bytes", lambda row: row.record.package.weight_bytes),
    Column("runtime", lambda row: row.record.runtime.name),
    Column("runtime_version", lambda row: row.record.runtime.version),
    _for_readers("Compute Units", _where, 4),
    Column("compute_units", lambda row: row.record.runtime.compute_units),
    Column("device", lambda row: row.record.device.name),
    Column("chip", lambda row: row.record.device.chip),
    Column("os", lambda row: f"{row.record.device.os} {row.record.device.os_version}"),
    Column("batch_size", lambda row: row.record.protocol.batch_size),
    Column("concurrency", lambda row: row.record.protocol.concurrency),
    Column("status", lambda row: row.record.status),
    Column("reason", lambda row: row.record.reason),
    _for_readers("Median", _median, _MEDIAN),
    Column("median_ms", _of_summary(lambda found: _ms(found.median_ns.value))),
    Column("median_low_ms", _of_summary(lambda found: _ms(found.median_ns.low))),
    Column("median_high_ms", _of_summary(lambda found: _ms(found.median_ns.high))),
    _milliseconds("p90_ms", lambda found: found.p90_ns, "p90", 8),
    _milliseconds("p99_ms", lambda found: found.p99_ns, "p99", 9),
    _milliseconds("min_ms", lambda found: found.min_ns, "Min", 10),
    _milliseconds("call_median_ms", lambda found: found.call_median_ns, "Call", 11),
    Column("model_time", _of_summary(lambda found: found.model_time)),
    Column("throughput", _of_summary(lambda found: found.throughput), "Samples/s", number(",.0f"), _BOTH, 12),
    Column("predictions", lambda row: row.summary.predictions if row.summary else 0),
    Column("rounds", lambda row: len(row.record.rounds)),
    _for_readers("Speed-up", lambda row: _with_interval(row.speed_up, ".2f"), 7),
    Column("speed_up", _of_speed_up(lambda faster: faster.value)),
    Column("speed_up_low", _of_speed_up(lambda faster: faster.low)),
    Column("speed_up_high", _of_speed_up(lambda faster: faster.high)),
    Column("drift", _of_summary(lambda found: found.drift), "Drift", percent("+.1f"), _BOTH, 13),
    Column("disagreement", _of_summary(lambda found: found.disagreement)),
    _for_readers(_WAKES, _woken, 14),
    *(Column(f"wake_{seconds:g}_s_ms", _wake_after(seconds)) for seconds in IDLE_SECONDS),
    _for_readers(_ENERGY, lambda row: _with_interval(row.energy.get(TOTAL), ".2f"), 15),
    *(Column(f"energy_{name}", _of_energy(part, TOTAL)) for name, part in _OF_INTERVAL.items()),
    *(Column(f"energy_{name}_mj", _of_energy(_OF_INTERVAL["mj"], name)) for name in DEVICES),
    _for_readers(_MEMORY, _peak, 16),
    Column("load_peak_bytes", _of_memory(lambda memory: memory.load_peak_bytes)),
    Column("predict_peak_bytes", _of_memory(lambda memory: memory.predict_peak_bytes)),
    Column("cold_loads_ms", lambda row: [_ms(one) for one in row.record.cold_loads_ns]),
    Column("qos", lambda row: row.record.qos),
    Column("compile_ms", lambda row: _ms(row.record.compile_ns)),
    Column("cold_load_ms", lambda row: _ms(row.record.cold_load_ns)),
    Column("cached_load_ms", lambda row: _ms(row.record.cached_load_ns)),
    _for_readers("Planned on Neural Engine, GPU, CPU", _of_placement(_planned), 17),
    *(Column(f"planned_{device}", _planned_share(device)) for device in DEVICES),
    *(Column(f"planned_{device}_cost", _planned_cost(device)) for device in DEVICES),
    _for_readers("Load cold, cached", _load, 18),
    _for_readers("State", lambda row: _state(row.record), 19),
    Column("state_before", lambda row: row.record.rounds[0].before.model_dump() if row.record.rounds else None),
    Column("state_after", lambda row: row.record.rounds[-1].after.model_dump() if row.record.rounds else None),
    Column(
        "published_median_ms", lambda row: _published_ms(row.record), "Published", number(), (_BESIDE_PUBLISHED,), 6
    ),
    Column("warnings", lambda row: list(row.summary.warnings) if row.summary else []),
]
"""What a row says. Times in milliseconds, drift and shares as fractions; None: not known."""

_BESIDES = [column for column in COLUMNS if column.header in (_WAKES, _ENERGY, _MEMORY)]


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


def _without_empty(worded: list[dict[str, str]]) -> list[dict[str, str]]:
    """Columns that say something."""
    named = {name for row in worded for name, text in row.items() if text.strip("-, ")}
    return [{name: text for name, text in row.items() if name in named} for row in worded]


def _state(record: LatencyRecord) -> str | None:
    if not record.rounds:
        return None
    before, after = record.rounds[0].before, record.rounds[-1].after
    if before == after == State():
        return "unknown"
    words = [_state_words(state) for state in (before, after)]
    return words[0] if words[0] == words[1] else f"{words[0]} → {words[1]}"


def _state_words(state: State) -> str:
    power = {True: "battery", False: "AC", None: None}[state.on_battery]
    if state.on_battery and state.battery_percent is not None:
        power = f"battery {state.battery_percent:.0f} %"
    words = [state.thermal, "low power" if state.low_power else None, power]
    # Where nothing else is known, as on Linux, the load is what there is.
    load = None if state.load_average is None or any(words) else f"load {state.load_average:.1f}"
    return ", ".join(word for word in (*words, load) if word)


def _ms(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e6


def _with_interval(found: Interval | None, form: str, unit: float = 1) -> str:
    if found is None:
        return "-"
    value, low, high = (format(one / unit, form) for one in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"
