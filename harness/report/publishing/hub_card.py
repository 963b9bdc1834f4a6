"""A row as a model card of the Hugging Face hub, with its accuracy where the hub looks for it (`EvalResult`)."""

from pathlib import Path
from typing import Any

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.escaping import markdown
from coreml_prune_bench.models.weights_licence import licence_of
from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.report.config_rows import ConfigRow, mean
from coreml_prune_bench.report.row_names import row_name


def card(row: ConfigRow, licence: str | None = None) -> str:
    """The card, validated by huggingface_hub's own classes. licence: as the hub identifies it, such as "mit".

    Raises BenchError where nothing was measured.
    """
    from huggingface_hub import EvalResult, ModelCardData

    first, top1, top5 = row.measured[0] if row.measured else None, mean(row.top1), mean(row.top5)
    if first is None or top1 is None or top5 is None:
        raise BenchError(f"{row.title}, {row.config} was not measured: there is nothing to say of it on a card")
    name = row_name(row)
    common: dict[str, Any] = {
        "task_type": "image-classification",
        "task_name": "Image classification",
        "dataset_type": _hub_name(first.data.spec),
        "dataset_name": _hub_name(first.data.spec),
        "dataset_split": first.data.split,
        "dataset_revision": first.data.revision,
    }
    data = ModelCardData(
        model_name=name,
        library_name="coreml",
        pipeline_tag="image-classification",
        license=licence,
        tags=["coreml", "pruning", "sparsity", first.pruning.algorithm],
        eval_results=[
            EvalResult(
                **common, metric_type="accuracy", metric_name="Top-1 accuracy", metric_value=round(top1 / 100, 6)
            ),
            EvalResult(
                **common, metric_type="accuracy", metric_name="Top-5 accuracy", metric_value=round(top5 / 100, 6)
            ),
        ],
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_text(row, first, name, top1, top5)}"


def check(path: Path) -> None:
    """Read a card back with huggingface_hub. Raises BenchError where that finds no accuracy in it."""
    from huggingface_hub import ModelCard

    if not ModelCard.load(path).data.eval_results:
        raise BenchError(f"{path}: huggingface_hub finds no results in it")


def _text(row: ConfigRow, first: Record, name: str, top1: float, top5: float) -> str:
    ratio = "" if row.compression_ratio is None else f", {row.compression_ratio:.2f} times smaller than dense"
    size = "" if row.weight_bytes is None else f"{row.weight_bytes / 1e6:.2f} MB of weights{ratio}"
    runtime = first.runtime.name if first.runtime else ""
    note = " (on the CPU, without Core ML)" if runtime == "portable" else ""
    lines = [
        f"# {markdown(name)}",
        f"{markdown(first.network.title)}, {markdown(first.pruning.title)}, {markdown(first.config)}. Pruned: "
        f"{markdown(first.pruning.scope)}.",
        f"- Top-1 {top1:.2f} %, top-5 {top5:.2f} % on {len(row.labels):,} images of "
        f"{markdown(_hub_name(first.data.spec))}, runtime `{runtime}`{note}",
        f"- {size}, {first.package.deployment_target if first.package else ''}",
    ]
    if terms := licence_of(first.network.weights):
        lines.append(f"- {markdown(terms)}")
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:]) + "\n"


def _hub_name(spec: str) -> str:
    """A data set without the folders that it lies in: "ILSVRC/imagenet-1k" of the hub, "imagenet" of a folder."""
    kind, _, place = spec.partition(":")
    place = place.partition("#")[0].partition("@")[0]
    if kind == "hf" and place.count("/") == 1 and not place.startswith(("/", ".")):
        return place
    return Path(place).name or kind
