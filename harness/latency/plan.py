"""The protocol in words, how many predictions it takes and about how long: what `--dry-run` prints."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from coreml_prune_bench.latency.bench import WARM_UP_LIMIT_CALLS, WARM_UP_LIMIT_SECONDS
from coreml_prune_bench.latency.besides import REPEATS, SECONDS
from coreml_prune_bench.latency.energy import WINDOW_SECONDS, WINDOWS
from coreml_prune_bench.latency.session import COOL_DOWN_SECONDS
from coreml_prune_bench.latency.steady import FEWEST
from coreml_prune_bench.records.latency import IDLE_SECONDS, Besides, LatencyRecord, Protocol

LOAD_SECONDS = 10.0
"""What compiling and two loads of a package are taken to last where there is no record of it."""

DEVICE_CALL_SECONDS = 3.0
"""A prediction on an iPhone: four files that `devicectl` copies."""


_BESIDES: dict[Besides, str] = {
    "cold": f"{REPEATS} loads, each in a process that finds nothing in the system's cache",
    "wake": f"the first prediction after {', '.join(f'{seconds:g}' for seconds in IDLE_SECONDS)} s of idling, "
    f"each {REPEATS} times",
    "energy": f"{WINDOWS} times {WINDOW_SECONDS:g} s of idling and {WINDOW_SECONDS:g} s of predictions",
    "memory": "the most that a process of its own holds while it loads and predicts",
}


@dataclass(frozen=True)
class Plan:
    """predictions: the least that will be made, warm-ups included. seconds: an estimate."""

    predictions: int
    seconds: float


def estimate(
    rows: int,
    protocol: Protocol,
    *,
    on_device: bool,
    earlier: Sequence[LatencyRecord] = (),
    besides: Collection[Besides] = (),
) -> Plan:
    """earlier: records of such rows, from which it is known what loads and calls take. besides: what is asked for."""
    warm_up = FEWEST if protocol.warm_up_calls is None else protocol.warm_up_calls
    call = DEVICE_CALL_SECONDS if on_device else _mean([_call_seconds(record) for record in earlier])
    load = _mean([_load_seconds(record) for record in earlier]) or LOAD_SECONDS
    visit = max(protocol.seconds, protocol.predictions * call) + warm_up * call
    calls = warm_up + protocol.rounds * (warm_up + protocol.predictions)
    seconds = load + warm_up * call + protocol.rounds * visit + sum(SECONDS[kind] for kind in besides)
    return Plan(rows * calls * protocol.concurrency, rows * seconds)


def describe(
    plan: Plan, protocol: Protocol, rows: str, *, seed: int, known_times: bool, besides: Collection[Besides] = ()
) -> str:
    """What will be done, in lines. rows: in words. known_times: the estimate rests on earlier records."""
    warm_up = (
        f"until it is steady (MSER-5), at most {WARM_UP_LIMIT_CALLS:,} calls or {WARM_UP_LIMIT_SECONDS:g} s"
        if protocol.warm_up_calls is None
        else f"{protocol.warm_up_calls} calls"
    )
    together = f", {protocol.concurrency} processes at a time" if protocol.concurrency > 1 else ""
    basis = (
        "as loads and predictions took in earlier records"
        if known_times
        else f"if a row takes {LOAD_SECONDS:g} s to compile and load; a first load can take minutes"
    )
    lines = [
        f"rows: {rows}",
        f"each row: compiled once to a lasting path, loaded cold and from the cache, warmed up {warm_up}",
        f"rounds: {protocol.rounds}, each over all rows in an order shuffled by seed {seed}, each second one backwards",
        f"visit: warmed up again, then {protocol.predictions} predictions, {protocol.seconds:g} s at least{together}",
        "cool-down: before a visit while the thermal state is above nominal, at most "
        f"{COOL_DOWN_SECONDS / 60:g} minutes over the run",
        "kept: every sample, of the model and of the call, and the state of heat and power around each visit",
        "not measured again: rows that have a record of this protocol, device and runtime",
        *(f"besides: {_BESIDES[kind]}" for kind in besides),
        f"predictions: at least {plan.predictions:,}",
        f"estimated time: {_duration(plan.seconds)}, {basis}",
    ]
    return "\n".join(lines)


def _call_seconds(record: LatencyRecord) -> float:
    calls = [call for one in record.rounds for call in one.call_ns]
    return sum(calls) / len(calls) / 1e9


def _load_seconds(record: LatencyRecord) -> float:
    return sum(taken or 0 for taken in (record.compile_ns, record.cold_load_ns, record.cached_load_ns)) / 1e9


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
