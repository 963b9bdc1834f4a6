"""`sensitivity`: what pruning each layer alone does to a network."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreml_prune_bench.cli.cluster_options import ClusterChoice, takes_cluster
from coreml_prune_bench.cli.options import (
    RESULTS,
    DeviceOption,
    JsonOption,
    ModelArgument,
    ResultsOption,
    SkipOption,
    WeightsOption,
)
from coreml_prune_bench.cli.output import show, terminal_width
from coreml_prune_bench.core.errors import BenchError, CellFailedError, fraction_hint
from coreml_prune_bench.core.files import refuse_file, write_atomically
from coreml_prune_bench.core.progress import Reporter, say

if TYPE_CHECKING:
    from coreml_prune_bench.bench.cells import Subject
    from coreml_prune_bench.bench.suite_choice import SuiteChoice
    from coreml_prune_bench.records.sensitivity import Sensitivity


_LEAST = 1 / 16
"""Below this share of zeros a sparse layer is larger than the dense one: a bit of mask for each Float16 weight."""


@takes_cluster
def sensitivity(
    model: ModelArgument,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="SPEC",
            help="`imagenet:PATH`, `imagefolder:PATH`, `hf:NAME` or `hf:PATH`, with a train split.",
        ),
    ],
    weights: WeightsOption = None,
    levels: Annotated[
        str, typer.Option("--levels", help="Sparsities to prune each layer to, with commas.")
    ] = "0.5,0.75,0.9",
    samples: Annotated[int, typer.Option("--samples", min=2, help="Training images to measure on.")] = 32,
    sparsity: Annotated[
        float | None,
        typer.Option(
            "--sparsity",
            help="Print a `layers` table for post-training pruning or MagnitudePruner in a suite as well: as large as "
            "stored as with this sparsity for all layers. (SparseGPT and blockwise reconstruction prune other layers.)",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write what is printed there too.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw it as well; the name ends in .svg or .png."),
    ] = None,
    results: ResultsOption = RESULTS,
    skip_bad_images: SkipOption = False,
    device: DeviceOption = "auto",
    asked_of_cluster: ClusterChoice = ClusterChoice(),
    as_json: JsonOption = False,
) -> None:
    """Prune one layer at a time, data-free, and show what that does to the outputs and to top-1, by layer.

    For example: `sensitivity mobilenet_v2 --data imagefolder:/data/imagenet --plot sensitivity.svg`

    What is measured is kept in the results folder: a stopped run goes on where it was, and configs with
    `allocation = "sensitivity"` take it from there.
    """
    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise BenchError(f"--plot {plot}: expected a name that ends in .svg or .png")
    if sparsity is not None and not _LEAST < sparsity < 1:
        raise BenchError(
            f"--sparsity {sparsity:g}: expected a fraction above {_LEAST:g}, which the mask takes, and below 1"
            + fraction_hint(sparsity)
        )
    for option, file in (("--out", out), ("--plot", plot)):
        if file is not None:
            refuse_file(file, f"{option} {file}", replace=True)
    if plot is not None:
        from coreml_prune_bench.report.drawn import refuse_undrawn

        refuse_undrawn()
    chosen = _levels(levels)

    from coreml_prune_bench.bench.contention import tell_if_busy
    from coreml_prune_bench.bench.run import RunOptions
    from coreml_prune_bench.bench.sensitivity import sensitivity_key
    from coreml_prune_bench.bench.training_options import TrainingOptions
    from coreml_prune_bench.records.store import Store

    store = Store(results)
    from coreml_prune_bench.bench.build.builder import Builder

    reporter = Reporter()
    subject = _subject(model, data, weights)
    there = asked_of_cluster.elsewhere(device, results)
    with there as others, reporter.steps(subject.network.name, 1) as steps:
        training = TrainingOptions(device=device if others is None else "auto")
        builder = Builder(store, steps.update, skip_bad_images=skip_bad_images, training=training)
        try:
            if others is None:
                tell_if_busy(reporter.say)
            elif store.found(sensitivity_key(subject, samples, chosen)) is None:
                choice = _as_suite(subject, data, weights)
                options = RunOptions(
                    store, reporter, skip_bad_images=skip_bad_images, training=TrainingOptions(device, say=reporter.say)
                )
                others.on(choice, choice.cells(reporter)).sensitivity((samples, chosen), options, steps)
            found = builder.sensitivity(subject, samples, chosen)
        except CellFailedError as error:
            raise BenchError(str(error)) from error
    layers = _allocation(subject, found, sparsity) if sparsity is not None else None

    def text(width: int | None) -> str:
        return _as_json(found, layers) if as_json else _told(found, layers, sparsity, width)

    show(text(terminal_width()))
    if out is not None:
        write_atomically(out, text(None) + "\n")
    if plot is not None:
        _draw(found, plot)


def _levels(text: str) -> tuple[float, ...]:
    try:
        levels = tuple(sorted({float(level) for level in text.split(",")}))
    except ValueError:
        levels = ()
    if not levels or not all(0 < level < 1 for level in levels):
        hint = fraction_hint(levels[-1]) if levels else ""
        raise BenchError(
            f"--levels {text}: expected fractions above 0 and below 1, with commas, such as 0.5,0.75{hint}"
        )
    return levels


def _subject(model: str, spec: str, weights: Path | None) -> "Subject":
    from coreml_prune_bench.bench.cells import Subject
    from coreml_prune_bench.bench.head_rows import head_rows
    from coreml_prune_bench.bench.network_input import as_taken
    from coreml_prune_bench.data.halves import open_data_or_part
    from coreml_prune_bench.models.registry import get_network
    from coreml_prune_bench.models.weights import head_classes, load_pretrained

    network, data = as_taken(get_network(model), open_data_or_part(spec), pretrained=True, say=say)
    try:
        classes = head_classes(network, load_pretrained(network, weights), data.image_size)
    except CellFailedError as error:
        raise BenchError(str(error)) from error
    if head_rows(data.classes, classes) is None:
        raise BenchError(
            f"{spec} has {len(data.classes)} classes, the weights of {network.name} {classes}; expected data of the "
            "classes that the network knows"
        )
    return Subject(
        suite="sensitivity",
        network=network,
        data=data,
        published=False,
        pretrained=True,
        weights_folder=weights,
        training=None,
    )


def _as_suite(subject: "Subject", spec: str, weights: Path | None) -> "SuiteChoice":
    """The network as workers find it: in a suite without configs."""
    from coreml_prune_bench.bench.suite import DEFAULT_DATA, Suite
    from coreml_prune_bench.bench.suite_choice import SuiteChoice

    # Not validated: a file with as little in it would be none.
    suite = Suite.model_construct(
        name=subject.suite, description="", models=(subject.network.spec,), data={DEFAULT_DATA: spec}, trials=1
    )
    return SuiteChoice(suite, weights=weights)


def _allocation(subject: "Subject", found: "Sensitivity", sparsity: float) -> dict[str, float]:
    from coreml_prune_bench.models.layers import leave_dense, prunable_layers
    from coreml_prune_bench.models.pruning.allocation import allocated
    from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
    from coreml_prune_bench.models.weights import untrained_model

    data = subject.data
    model = untrained_model(subject.network, len(data.classes), image_size=data.image_size)
    leave_dense(model, prunable_layers(model).keys() - found.losses().keys())
    config = allocated(PostTrainingConfig(sparsity=sparsity), subject.network, model, found.losses())
    return dict(config.layers)


def _as_json(found: "Sensitivity", layers: dict[str, float] | None) -> str:
    return json.dumps(found.model_dump(mode="json") | ({} if layers is None else {"allocation": layers}), indent=2)


def _told(
    found: "Sensitivity", layers: dict[str, float] | None, sparsity: float | None, width: int | None = None
) -> str:
    import tomli_w

    from coreml_prune_bench.report.sensitivity import table

    if layers is None or sparsity is None:
        return table(found, width)
    keys = {name: tomli_w.dumps({name: 0}).removesuffix(" = 0\n") for name in layers}  # as TOML has names
    lines = [f"{keys[name]} = {own:g}" for name, own in layers.items()]
    percent = f"{100 * sparsity:g}%"
    head = [
        f"# As large as {percent} for all layers; of a [[configs]] table of post-training or magnitude-pruner.",
        f'label = "{percent}, by layer"',
        "[configs.layers]",
    ]
    return "\n".join([table(found, width), "", *head, *lines])


def _draw(found: "Sensitivity", path: Path) -> None:
    from coreml_prune_bench.report.drawn import png, svg
    from coreml_prune_bench.report.sensitivity import chart

    drawn = chart(found)
    write_atomically(path, svg(drawn) if path.suffix == ".svg" else png(drawn))
