"""What the page has as tables: a column's numbers to sort by, links to commands and packages; sparsity by layer."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.report.accuracy_tables import Table, worded
from coreml_prune_bench.report.config_rows import ConfigRow, mean
from coreml_prune_bench.report.made import RowKey, named, row_key

_LONGEST_LABEL = 18

Linked = Callable[[ConfigRow], str | None]
"""Where a row's package lies, as a link of the page; None where it is not known."""


@dataclass(frozen=True)
class Filtered:
    """What shows and hides a row: its network, the number of its algorithm's series.

    group: in which a measured one may be beaten by others; size, top1: in what (bytes, %). None where there is none.
    """

    network: str | None
    series: int | None
    group: str | None = None
    size: float | None = None
    top1: float | None = None


@dataclass(frozen=True)
class PageTable:
    """A sortable table. made: each row's place among the commands; packages: a link to each row's; None where there is
    none. filters: what each row is filtered by."""

    title: str
    caption: str
    rows: list[dict[str, str]]
    made: list[str | None] = field(default_factory=list)
    packages: list[str | None] = field(default_factory=list)
    filters: list[Filtered] = field(default_factory=list)

    @property
    def numeric(self) -> set[str]:
        """The columns of numbers."""
        return {name for name in self.rows[0] if all(_is_number(row[name]) for row in self.rows)}


@dataclass(frozen=True)
class Layers:
    """Sparsity by layer: one column a config, in %; None where that config leaves the layer dense."""

    title: str
    network: str
    configs: list[str]
    sparsities: dict[str, list[float | None]]


def page_table(
    title: str,
    text: str,
    found: list[ConfigRow],
    table: Table,
    ids: Mapping[RowKey, str],
    linked: Linked,
    series: Mapping[str, int],
    more: Callable[[ConfigRow], dict[str, str]] = lambda row: {},
) -> PageTable:
    """A table of the command, with links. more: columns that it has here alone, by header."""
    made = [ids.get(row_key(row.first)) if row.first else None for row in found]
    rows = [cells | more(row) for cells, row in zip(worded(found, table), found, strict=True)]
    packages = [linked(row) for row in found]
    filters = [_filtered(row, series) for row in found]
    return PageTable(title, text[0].upper() + text[1:], rows, made, packages if any(packages) else [], filters)


def _filtered(row: ConfigRow, series: Mapping[str, int]) -> Filtered:
    number = series.get(named(row.algorithm_title or ""))
    if not row.top1 or not row.weight_bytes:
        return Filtered(row.title, number)
    return Filtered(row.title, number, f"{row.title} on {row.data}", row.weight_bytes, mean(row.top1))


def _is_number(text: str) -> bool:
    return text in ("-", "failed", "not measured") or re.match(r"[+-]?\d", text) is not None


def layers_of(rows: Iterable[list[Record]]) -> list[Layers]:
    """By network: a row's first measured trial stands for all, which have the same targets."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for trials in rows:
        record = next((trial for trial in trials if trial.package and trial.package.layers), None)
        if record is not None:
            groups.setdefault((record.network.title, record.suite), []).append(record)
    several = len({suite for _, suite in groups}) > 1
    found = []
    for (title, suite), group in groups.items():
        by_config = [{layer.name: layer.sparsity for layer in r.package.layers} for r in group if r.package]
        names = dict.fromkeys(name for layers in by_config for name in layers)
        found.append(
            Layers(
                title=f"{title}, suite {suite}" if several else title,
                network=title,
                configs=[f"{r.pruning.title}: {short(r.pruning.config)}" for r in group],
                sparsities={
                    name: [100 * layers[name] if name in layers else None for layers in by_config] for name in names
                },
            )
        )
    return found


def short(config: str) -> str:
    """A config as a label in a chart, where pointing at it tells the rest."""
    text = brief(config)
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"


def brief(text: str) -> str:
    return text.replace("Unstructured Sparsity ", "").replace(", BatchNorm re-estimated", " BN")
