"""The sensitivity of a network's layers, as a results folder holds it, told and drawn."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from coreml_prune_bench.records.sensitivity import SYNTHETIC, Effect, Sensitivity
from coreml_prune_bench.records.store import manifests
from coreml_prune_bench.report.charts import IN_FILE, DotRow, Draw, dots, finished
from coreml_prune_bench.report.formats import write_cells

if TYPE_CHECKING:
    import altair as alt

_LEAST_DRAWN = 1e-4
"""Nats; what is less stands there in a chart."""


def table(sensitivity: Sensitivity, width: int | None = None) -> str:
    """`rows`, to be read. width: of a terminal that shows them."""
    return write_cells(rows(sensitivity), caption=caption(sensitivity), width=width)


def rows(sensitivity: Sensitivity) -> list[dict[str, str]]:
    """A row a layer: what pruning it alone to each level does."""
    return [
        {"Layer": layer.layer, "Weights": f"{layer.elements:,}"}
        | {f"{100 * e.sparsity:g} %: error": _error(e.divergence) for e in layer.effects}
        | {f"{100 * e.sparsity:g} %: top-1": f"{100 * e.top1:.1f}" for e in layer.effects}
        for layer in sensitivity.layers
    ]


def caption(sensitivity: Sensitivity) -> str:
    images = f"images of {sensitivity.data} ({sensitivity.split})"
    if sensitivity.split == SYNTHETIC:
        images = "synthetic images, whose classes are those that the dense network gives them"
    return (
        f"{sensitivity.title}, each layer pruned alone by magnitude, BatchNorm measured anew; {sensitivity.images:,} "
        f"{images}. Error: divergence from the dense network, in nats. Top-1 "
        f"in %, dense {100 * sensitivity.dense_top1:.1f}; one image is {100 / sensitivity.images:.1f}."
    )


def chart(sensitivity: Sensitivity) -> "alt.TopLevelMixin":
    """Error and top-1 beside each other, for a file."""
    return finished([draw(IN_FILE) for draw in panels(sensitivity)], IN_FILE, columns=2)


def panels(sensitivity: Sensitivity) -> list[Draw]:
    """Error, and top-1: a row a layer, a mark a level."""
    levels = [f"{100 * effect.sparsity:g} %" for effect in sensitivity.layers[0].effects]

    def dot_rows(value: Callable[[Effect], float | None]) -> list[DotRow]:
        return [
            DotRow(
                layer.layer,
                tuple(value(e) for e in layer.effects),
                tuple(
                    (f"{layer.layer} at {name}", *_details(e)) for name, e in zip(levels, layer.effects, strict=True)
                ),
            )
            for layer in sensitivity.layers
        ]

    names = {number: f"layer {level} sparse" for number, level in enumerate(levels)}
    errors = dot_rows(lambda e: None if e.divergence is None else max(e.divergence, _LEAST_DRAWN))
    told = f"%, dense {100 * sensitivity.dense_top1:.1f}"
    return [
        partial(dots, f"{sensitivity.title}: error", errors, "divergence from dense, nats", names, logarithmic=True),
        partial(dots, "Top-1", dot_rows(lambda e: 100 * e.top1), told, names),
    ]


def _details(effect: Effect) -> tuple[str, str]:
    return f"error {_error(effect.divergence)}", f"top-1 {100 * effect.top1:.1f} %"


def _error(divergence: float | None) -> str:
    return "-" if divergence is None else f"{divergence:.4f}"


def kept_sensitivities(results: Path) -> list[Sensitivity]:
    """Those that a results folder holds, of each network and its images the newest."""
    found: dict[tuple[str, str, str], Sensitivity] = {}
    for made in manifests(results):
        if isinstance(made, dict) and made.keys() == Sensitivity.model_fields.keys():
            try:
                one = Sensitivity.model_validate(made)
            except ValidationError:
                continue  # an artifact that is damaged, which is made again where it is used
            if one.layers:
                found[one.network, one.data, one.split] = one
    return list(found.values())
