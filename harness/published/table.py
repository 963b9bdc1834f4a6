"""The published table: accuracy, ratio and latency of each row, and the addresses behind it.

Tables start with this, so it imports next to nothing.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("published_pruning.csv")


@dataclass(frozen=True)
class PublishedRow:
    """One row of the published table. Accuracy in %, its deviation over three trials None for the dense networks.

    model: a network's title. compression_ratio: bytes of weight.bin, dense over sparse. latency_ms: the median on an
    iPhone 14 Pro.
    """

    model: str
    config: str
    algorithm: str
    compression_ratio: float
    top1_mean: float
    top1_std: float | None
    latency_ms: float
    package_url: str
    config_url: str | None

    @property
    def sparsity(self) -> float:
        """The fraction of zeros asked of each pruned layer; 0 for the dense networks."""
        percent = re.fullmatch(r"Unstructured Sparsity (\d+)%", self.config)
        return int(percent[1]) / 100 if percent else 0.0

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.package_url, self.config_url) if self.config_url else (self.package_url,)


def published_counterpart(
    table: list[PublishedRow], title: str, sparsity: float | None, settings: Mapping[str, Any]
) -> PublishedRow | None:
    """The published row of the same network and sparsity, for a config as records keep it; None if there is none.

    The published rows are of single weights, by the same share in every layer, kept in Float16: a config of another
    structure, of layers with sparsities of their own, or of fewer bits has no counterpart.
    """
    usual = {"granularity": "per_scalar", "weight_dtype": "float32"}
    if any(settings.get(key) for key in ("n_m_ratio", "block_size", "layers", "quantize_bits", "palettize_bits")):
        return None
    if any(settings.get(key, value) != value for key, value in usual.items()):
        return None
    return next((row for row in table if (row.model, row.sparsity) == (title, sparsity)), None)


def read_table() -> list[PublishedRow]:
    """The published table's rows, in its order."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [
            PublishedRow(
                model=row["model"],
                config=row["config"],
                algorithm=row["algorithm"],
                compression_ratio=float(row["compression_ratio"]),
                top1_mean=float(row["top1_mean"]),
                top1_std=float(row["top1_std"]) if row["top1_std"] else None,
                latency_ms=float(row["latency_ms"]),
                package_url=row["package_url"],
                config_url=row["config_url"] or None,
            )
            for row in csv.DictReader(file)
        ]
