"""`advise`: the algorithm and the config for one network and its images, found by measuring."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreml_prune_bench.cli.cluster_options import ClusterChoice, takes_cluster
from coreml_prune_bench.cli.options import (
    RESULTS,
    CheckpointOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    ResultsOption,
    SkipOption,
    WeightsOption,
    finite,
)
from coreml_prune_bench.cli.output import show, show_json, tabled
from coreml_prune_bench.cli.preprocessing import takes_preprocessing
from coreml_prune_bench.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from coreml_prune_bench.advice.advice import Advice, Tried


@takes_preprocessing(layout=False)
@takes_cluster
def advise(
    model: ModelArgument,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="SPEC",
            help="Your images, as `run` takes them. What is not for training is divided: half to choose by, half to "
            "judge the choice. 5,000 of each are used at most.",
        ),
    ],
    max_drop: Annotated[
        float, typer.Option("--max-drop", min=0, help="Points of top-1 that may be lost, above 0.", callback=finite)
    ] = 1.0,
    min_ratio: Annotated[
        float | None,
        typer.Option(
            "--min-ratio",
            min=1,
            help="How many times smaller weight.bin has to be: the first package that meets both ends the search. "
            "[the smallest one that the budget finds]",
            callback=finite,
        ),
    ] = None,
    budget: Annotated[str, typer.Option("--budget", metavar="TIME", help="Such as 90s, 30m or 2h.")] = "30m",
    float16: Annotated[
        bool, typer.Option("--float16", help="Only packages that run on iOS17: no 8-bit weights, which need iOS18.")
    ] = False,
    package_format: Annotated[
        str,
        typer.Option(
            "--package-format",
            help="Of the package: mlpackage (Core ML), or aimodel (Core AI, with the extra `coreai`).",
        ),
    ] = "mlpackage",
    weights: WeightsOption = None,
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            help="A suite that says whether the network is pre-trained, and how it is trained if it is not or if the "
            "images have other classes; its configs do not count. `digits` trains from scratch.",
        ),
    ] = "imagenet",
    results: ResultsOption = RESULTS,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the package goes.  [RESULTS/advice/NETWORK]"),
    ] = None,
    asked: Preprocessing = Preprocessing(),
    skip_bad_images: SkipOption = False,
    device: DeviceOption = "auto",
    checkpoint_minutes: CheckpointOption = 1,
    asked_of_cluster: ClusterChoice = ClusterChoice(),
    as_json: JsonOption = False,
) -> None:
    """Find the smallest package of a network that loses no more than you allow, and say why it is that one.

    It goes the way of Core ML Tools' guide: configs without data to see sizes; then pruning without data, SparseGPT,
    blockwise reconstruction and MagnitudePruner, with --min-ratio each only where the one before it was not enough.
    Every package is an ordinary cell of the results folder: a stopped search goes on where it was, and `table` and
    `report` show it all.

    For example: `advise mobilenet_v2 --data imagefolder:/data/x --max-drop 1 --min-ratio 1.7 --budget 1h`

    Exit code 0: the goal is met on images that had no say in the choice. 1: it is not; the best that was found is
    written all the same.
    """
    from coreml_prune_bench.advice.advise import advise as find

    with asked_of_cluster.elsewhere(device, results) as others:
        advice = find(
            model,
            data,
            preprocessing=asked if asked.changes() else None,
            max_drop=max_drop,
            min_ratio=min_ratio,
            eight_bits=not float16,
            package_format=package_format,
            budget=budget,
            suite=suite,
            weights=weights,
            results=results,
            out=out,
            skip_bad_images=skip_bad_images,
            device=device,
            checkpoint_minutes=checkpoint_minutes,
            elsewhere=others,
        )
    folder = out or results / "advice" / advice.network
    if as_json:
        show_json(advice.model_dump_json(indent=1))
    else:
        show(_told(advice, folder))
    if not advice.met:
        raise typer.Exit(1)


def _told(advice: "Advice", folder: Path) -> str:
    """The advice for a reader."""
    from coreml_prune_bench.advice.advice import INTERVAL

    goal, final = advice.goal, advice.final
    asked = f"at most {goal.max_drop:g} points below the dense network" + (
        f", at least {goal.min_ratio:g} times smaller" if goal.min_ratio else ""
    )
    dense = advice.tried[0].selection.dense_top1
    notes = f"Dense: {dense:.2f} % on the images to choose by. *: no other is as small and as accurate."
    table = tabled([_row(one) for one in advice.tried])
    lines = [f"{advice.title} on {advice.data}: {asked}. {notes}", "", table, ""]
    if advice.best is None or final is None:
        lines.append(f"No package is {goal.min_ratio or 1:g} times smaller. What was tried is in {folder}.")
        return "\n".join(lines)
    best = advice.tried[advice.best]
    if advice.chosen is None:
        lines.append("No package was shown to be within that. The closest:")
    lines += [
        f"{best.title}, {best.config}: {best.ratio:.2f} times smaller, {best.weight_bytes:,} bytes of weights.",
        f"On {final.images:,} images that had no say in the choice it has {final.top1:.2f} % top-1, the dense network "
        f"{final.dense_top1:.2f} %: {final.drop:.2f} points lost ({INTERVAL} {final.low:.2f} to {final.high:.2f}), "
        f"{_verdict(advice)}.",
        f"Written to {folder}: the package, its config as Core ML Tools' YAML, advise.toml with all that was tried.",
    ]
    return "\n".join(lines)


def _row(tried: "Tried") -> dict[str, str]:
    from coreml_prune_bench.advice.advice import INTERVAL

    return {
        "Config": tried.config,
        "Optimization Algorithm": tried.title,
        "Compression Ratio": f"{tried.ratio:.2f}",
        "Accuracy": f"{tried.selection.top1:.2f}",
        "Drop": f"{tried.selection.drop:.2f}",
        INTERVAL.capitalize(): f"{tried.selection.low:.2f} to {tried.selection.high:.2f}",
        "Within": "yes" if tried.within else "no",
        "Front": "*" if tried.front else "",
    } | ({} if tried.latency_ms is None else {"Latency (ms)": f"{tried.latency_ms:.2f}"})


def _verdict(advice: "Advice") -> str:
    assert advice.final is not None
    if advice.final.drop > advice.goal.max_drop:
        return "more than allowed"
    if advice.chosen is None:
        return "within what is allowed, by chance perhaps, for it was not shown to be before"
    return "within what is allowed"
