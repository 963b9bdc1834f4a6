"""Whether sparsity makes predictions faster on a device: a sentence for each network and choice of compute units."""

from collections.abc import Sequence

from coreml_prune_bench.latency.statistics import Interval
from coreml_prune_bench.records.latency import LatencyRecord
from coreml_prune_bench.report.latency_tables import latency_rows

_COUNTS = 0.02
"""A package that is faster by less is no reason to prune, and one that is slower by less none not to."""


def does_it_pay(records: Sequence[LatencyRecord]) -> list[str]:
    """Of each network and choice of compute units: how fast its pruned packages are beside the dense one."""
    by_network: dict[tuple[str, str], list[str]] = {}
    for row in latency_rows(records):
        network, pruning = row.record.package.network, row.record.package.pruning
        if network is None or pruning is None or row.speed_up is None:
            continue
        key = network.title, row.record.runtime.compute_units
        by_network.setdefault(key, []).append(f"{pruning.title} {pruning.config} {_said(row.speed_up)}")
    return [f"{title} on {units}: {'; '.join(said)}." for (title, units), said in by_network.items()]


def _said(times: Interval) -> str:
    interval = f"{times.value:.2f} times as fast as dense ({times.low:.2f} to {times.high:.2f})"
    if times.low > 1 + _COUNTS:
        return f"pays, {interval}"
    if times.high < 1 - _COUNTS:
        return f"costs, {interval}"
    if times.low > 1 - _COUNTS and times.high < 1 + _COUNTS:
        return f"makes no difference, {interval}"
    return f"cannot tell, {interval}"
