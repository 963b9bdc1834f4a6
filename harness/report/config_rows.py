"""What a row of the accuracy and size tables is: a network in one config, its trials together, and what stands beside.

From records alone: neither torch nor coremltools, nor pandas.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from coreml_prune_bench.models.imagenet import IMAGENET_CLASSES
from coreml_prune_bench.published.table import PublishedRow, published_counterpart, read_table
from coreml_prune_bench.records.accuracy import Package, Record, Runtime
from coreml_prune_bench.records.latest import newest_trials, of_own_suite
from coreml_prune_bench.records.predictions import Predictions


@dataclass(frozen=True)
class ConfigRow:
    """One network in one config.

    trials: the newest state, by number, those that failed too; none for a published row that nobody measured.
    dense: a record of the network itself, of this suite or of another one of the folder; None where none was built.
    published: the published row of the same network and sparsity, whatever the algorithm; of a network with another
    head, which is of another size, in a comparison alone.
    """

    trials: tuple[Record, ...]
    dense: Record | None
    published: PublishedRow | None

    @property
    def first(self) -> Record | None:
        """What all trials have in common stands in it."""
        return self.trials[0] if self.trials else None

    @cached_property
    def measured(self) -> list[Record]:
        return [trial for trial in self.trials if trial.predictions and trial.package and trial.runtime]

    @property
    def packages(self) -> list[Package]:
        """Of the measured trials."""
        return [trial.package for trial in self.measured if trial.package]

    @property
    def predictions(self) -> list[Predictions]:
        """Of the measured trials."""
        return [trial.predictions for trial in self.measured if trial.predictions]

    @property
    def runtime(self) -> Runtime | None:
        return self.measured[0].runtime if self.measured else None

    @cached_property
    def top1(self) -> list[float]:
        """In %, by measured trial."""
        return [100 * predictions.top1 for predictions in self.predictions]

    @cached_property
    def top5(self) -> list[float]:
        """In %, by measured trial."""
        return [100 * predictions.top5_accuracy for predictions in self.predictions]

    @property
    def labels(self) -> tuple[int, ...]:
        """By image; none where nothing was measured."""
        return self.predictions[0].labels if self.measured else ()

    @property
    def weight_bytes(self) -> float | None:
        """Of weight.bin, the mean over trials."""
        return mean([package.weight_bytes for package in self.packages])

    @property
    def compression_ratio(self) -> float | None:
        """Bytes of weight.bin, dense over pruned; None where the dense network was not built."""
        dense = self.dense.package if self.dense else None
        return dense.weight_bytes / self.weight_bytes if dense and self.weight_bytes else None

    # What a row is of: the record has it, or the published row where there is none.

    @property
    def suite(self) -> str | None:
        return self.first.suite if self.first else None

    @property
    def data(self) -> str | None:
        return self.first.data.spec if self.first else None

    @property
    def title(self) -> str | None:
        return self.first.network.title if self.first else self.published.model if self.published else None

    @property
    def config(self) -> str | None:
        return self.first.pruning.config if self.first else self.published.config if self.published else None

    @property
    def package_format(self) -> str | None:
        return self.first.package_format if self.first else None

    @property
    def algorithm_title(self) -> str | None:
        return self.first.pruning.title if self.first else self.published.algorithm if self.published else None

    @property
    def sparsity(self) -> float | None:
        return self.first.pruning.sparsity if self.first else self.published.sparsity if self.published else None


def config_rows(records: Iterable[Record]) -> list[ConfigRow]:
    """One row a suite, network, package format and config, from the newest state of each; the network itself first."""
    published = read_table()
    newest = newest_trials(records)
    built_dense = [trials for trials in newest if trials[0].pruning.algorithm == "dense" and trials[0].package]
    by_subject: dict[tuple[str, str, str], list[list[Record]]] = {}
    for trials in newest:
        first = trials[0]
        by_subject.setdefault((first.suite, first.subject_key, first.package_format), []).append(trials)
    found = []
    for (_, *subject), group in by_subject.items():
        group.sort(key=lambda trials: trials[0].pruning.algorithm != "dense")
        own = [one for one in built_dense if [one[0].subject_key, one[0].package_format] == subject]
        dense = of_own_suite(group[0], own)
        found += [_row(trials, dense[-1][0] if dense else None, published) for trials in group]
    return found


def beside_published(rows: Sequence[ConfigRow]) -> list[ConfigRow]:
    """The rows in the order of networks and sparsities, and the published rows that are nobody's counterpart.

    Networks with other heads have one here, too: what both are is for the reader to see.
    """
    published = read_table()
    rows = [replace(row, published=_counterpart(row.first, published)) if row.first else row for row in rows]
    met = {(row.title, row.sparsity) for row in rows if row.published}
    absent = [ConfigRow((), None, row) for row in published if (row.model, row.sparsity) not in met]
    titles = list(dict.fromkeys([*(row.model for row in published), *(row.title for row in rows)]))

    def place(row: ConfigRow) -> tuple[int, float]:
        return titles.index(row.title), math.inf if row.sparsity is None else row.sparsity

    return sorted([*rows, *absent], key=place)


def _row(trials: list[Record], dense: Record | None, published: list[PublishedRow]) -> ConfigRow:
    first = trials[0]
    same_head = first.data.classes == IMAGENET_CLASSES
    return ConfigRow(tuple(trials), dense, _counterpart(first, published) if same_head else None)


def _counterpart(first: Record, published: list[PublishedRow]) -> PublishedRow | None:
    pruning = first.pruning
    return published_counterpart(published, first.network.title, pruning.sparsity, pruning.settings)


def mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def sample_std(values: Sequence[float]) -> float | None:
    """With n - 1 in the denominator: three trials are a sample."""
    return statistics.stdev(values) if len(values) > 1 else None
