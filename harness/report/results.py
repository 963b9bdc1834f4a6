"""The records of a results folder for programs and notebooks: as they are, or as data frames.

    results = load_records("results/few-images")
    results.to_frame().sort_values("top1_mean")
    results.latest().to_frame("image").groupby(["config", "label"], observed=True)["correct"].mean()

pandas is imported where a frame is asked for, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.records.accuracy import Record, read_records
from coreml_prune_bench.records.latest import newest_trials
from coreml_prune_bench.report import accuracy_tables
from coreml_prune_bench.report.config_rows import config_rows
from coreml_prune_bench.report.formats import Column, values

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

Level = Literal["row", "trial", "image"]

_NAMES: list[Column[Record]] = [
    Column("suite", lambda record: record.suite),
    Column("data", lambda record: record.data.spec),
    Column("model", lambda record: record.network.name),
    Column("algorithm", lambda record: record.pruning.algorithm),
    Column("config", lambda record: record.pruning.config),
    Column("trial", lambda record: record.trial),
]

TRIAL_COLUMNS: list[Column[Record]] = [
    *_NAMES,
    Column("status", lambda record: record.status),
    Column("reason", lambda record: record.reason),
    Column("sparsity", lambda record: record.pruning.sparsity),
    Column("top1", lambda record: record.predictions and 100 * record.predictions.top1),
    Column("top5", lambda record: record.predictions and 100 * record.predictions.top5_accuracy),
    Column("images", lambda record: len(record.predictions.labels) if record.predictions else 0),
    Column("skipped_images", lambda record: len(record.data.skipped)),
    Column("weight_bytes", lambda record: record.package and record.package.weight_bytes),
    Column("package_bytes", lambda record: record.package and record.package.package_bytes),
    Column("whole_model_sparsity", lambda record: record.package and record.package.whole_model_sparsity),
    Column("package", lambda record: record.package and record.package.path),
    Column("runtime", lambda record: record.runtime and record.runtime.name),
    Column("compute_units", lambda record: record.runtime and record.runtime.compute_units),
    Column("build_seconds", lambda record: record.provenance.build_seconds),
    Column("evaluate_seconds", lambda record: record.provenance.evaluate_seconds),
    Column("created", lambda record: record.provenance.created),
    Column("git_commit", lambda record: record.provenance.git_commit),
    Column("key", lambda record: record.key),
]
"""What a data frame says of a record. Accuracies in %, sizes in bytes, sparsities as fractions."""


@dataclass(frozen=True)
class Results:
    """Records of measured and failed cells, in the order of their files. `len` and iteration are over them."""

    records: tuple[Record, ...]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def latest(self) -> Results:
        """Without what tables leave out: of each row the records of its newest weights, images and config."""
        return Results(tuple(chain.from_iterable(newest_trials(self.records))))

    def to_frame(self, level: Level = "row") -> pd.DataFrame:
        """A data frame. None where nothing was measured or nothing is known.

        "row": a row a suite, network and config of the newest state, trials together, with the columns of
        `table --format json`: accuracies in %, sizes in bytes, ratios dense over pruned.
        "trial": a row a record, failed ones too, with `TRIAL_COLUMNS`.
        "image": a row for each record and image, in the split's order without those skipped: suite, data, model,
        algorithm and config (categories), trial, image (its place, from 0), label, predicted (the best class) and
        correct (bool). Records x images rows; failed records have none.
        Raises BenchError for another level.
        """
        import pandas as pd

        match level:
            case "row":
                table = [values(accuracy_tables.COLUMNS, row) for row in config_rows(self.records)]
                return pd.DataFrame(table, columns=_names(accuracy_tables.COLUMNS))
            case "trial":
                records = [values(TRIAL_COLUMNS, record) for record in self.records]
                return pd.DataFrame(records, columns=_names(TRIAL_COLUMNS))
            case "image":
                return self._by_image()
        raise BenchError(f"level {level!r}: expected 'row', 'trial' or 'image'")

    def plot(self) -> alt.TopLevelMixin:
        """Accuracy against size, a panel a network and data set, as `report front.svg`: a chart of altair, which a
        notebook shows, and whose `save("front.png")` writes what the name ends with.

        Raises BenchError where nothing was measured, or where the extra `charts` is missing.
        """
        from coreml_prune_bench.report.page import figure

        return figure(list(self.records), [])

    def _by_image(self) -> pd.DataFrame:
        import pandas as pd

        told = [(record, record.predictions) for record in self.records if record.predictions]
        images = [len(predictions.labels) for _, predictions in told]  # [records]
        names = pd.DataFrame([values(_NAMES, record) for record, _ in told], columns=_names(_NAMES))
        texts = [name for name in names if name != "trial"]
        frame = names.astype(dict.fromkeys(texts, "category") | {"trial": np.int64})
        frame = frame.loc[frame.index.repeat(images)].reset_index(drop=True)  # [records x images]
        frame["image"] = np.concatenate([np.zeros(0, np.int64), *map(np.arange, images)])
        frame["label"] = np.fromiter(chain.from_iterable(p.labels for _, p in told), np.int64, sum(images))
        frame["predicted"] = np.fromiter((top[0] for _, p in told for top in p.top5), np.int64, sum(images))
        frame["correct"] = frame["predicted"] == frame["label"]
        return frame


def load_records(folder: str | Path) -> Results:
    """The accuracy records of a results folder, `folder/records/*.json`.

    Raises BenchError where there is none, and for a file that is no record.
    """
    return Results(tuple(read_records(Path(folder))))


def _names(columns: list[Column]) -> list[str]:
    return [column.name for column in columns if column.name is not None]
