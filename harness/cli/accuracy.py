"""`accuracy`: of any packages, ours or not."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreml_prune_bench.cli.cluster_options import ClusterChoice, takes_cluster
from coreml_prune_bench.cli.options import (
    AnyRuntimeOption,
    ClassMapOption,
    ComputeUnitsOption,
    JsonOption,
    LimitOption,
    NoImageCacheOption,
    OutputNameOption,
    PrecisionOption,
    SkipOption,
    TimeLimitOption,
    copied_here,
    exit_unkept,
    folder_or_address,
)
from coreml_prune_bench.cli.output import show, show_json, tabled
from coreml_prune_bench.cli.preprocessing import takes_preprocessing
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.core.time_limit import within
from coreml_prune_bench.models.preprocessing import Preprocessing
from coreml_prune_bench.records.predictions import Precision, Predictions
from coreml_prune_bench.runtimes.protocol import RuntimeName

if TYPE_CHECKING:
    from coreml_prune_bench.cluster.client import HowOnCluster
    from coreml_prune_bench.cluster.connect import Where


@takes_preprocessing()
@takes_cluster
def accuracy(
    packages: Annotated[
        list[Path], typer.Argument(metavar="PACKAGE...", help="Classification .mlpackage or .aimodel folders.")
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="SPEC",
            help="`digits`, `imagefolder:PATH`, `imagenet:PATH`, `hf:NAME` or `hf:PATH`.",
        ),
    ],
    runtime: AnyRuntimeOption = "portable",
    compute_units: ComputeUnitsOption = "all",
    precision: PrecisionOption = "float32",
    class_map: ClassMapOption = None,
    output: OutputNameOption = None,
    limit: LimitOption = None,
    asked: Preprocessing = Preprocessing(),
    skip_bad_images: SkipOption = False,
    no_image_cache: NoImageCacheOption = False,
    time_limit: TimeLimitOption = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            metavar="DIR|ADDRESS",
            help="Keep a record of each package there, for `gate`, `table` and `report`.  [none is kept]",
            parser=folder_or_address,
            callback=copied_here,
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar='"NETWORK[, CONFIG]"',
            help="What its record is called, one for each package, in order. The one named by NETWORK alone is the "
            "dense one, if it has no compressed weights.  [as the package]",
        ),
    ] = None,
    asked_of_cluster: ClusterChoice = ClusterChoice(),
    as_json: JsonOption = False,
) -> None:
    """Top-1 and top-5 of any image classification packages, ours or not, on the val split of a data set.

    Several packages share one pass over the images. A package that names its classes is matched to the data's by name,
    whatever their order; one with some of the names and others is refused.

    For example: `accuracy m.mlpackage --data imagefolder:/data/x --mean 0.5 --std 0.5 --crop scaleFill`

    An image input normalizes its pixels itself. For an array say which numbers it takes, unless its program begins
    with normalizing them; a warning tells where another way to prepare images is right more often.

    On a cluster the images are divided among its workers, each of which opens its own; packages travel.
    """
    from coreml_prune_bench.bench.given import names_of
    from coreml_prune_bench.data.halves import with_limit
    from coreml_prune_bench.records.store import Store

    data = with_limit(data, limit)
    if name and results is None:
        raise BenchError("--name names records, which --results DIR keeps: give both")
    if results:
        Store(results)  # refuses what it could not write afterwards
    names = names_of(packages, name) if results else []
    there = asked_of_cluster.asked()
    if there and runtime != "portable":
        raise BenchError(f"--cluster: its workers predict by the portable runtime; leave out --runtime {runtime}")
    if there and time_limit is not None:
        raise BenchError("--time-limit is of a process of this machine; --task-time-limit is of a step on a worker")
    every, skipped, unkept = within(
        time_limit,
        _evaluated,
        packages,
        data,
        asked,
        runtime=runtime,
        precision=precision,
        compute_units=compute_units,
        class_map=class_map,
        output=output,
        skip_bad_images=skip_bad_images,
        image_cache=not no_image_cache,
        results=results,
        names=names,
        there=there,
    )
    images = len(every[0].labels)
    found = [
        {
            "package": str(package),
            "top1": 100 * predictions.top1,
            "top1_stderr": 100 * (predictions.top1 * (1 - predictions.top1) / images) ** 0.5,
            "top5": 100 * predictions.top5_accuracy,
            "images": images,
            "skipped_images": len(skipped),
            "data": data,
            "runtime": runtime,
            "precision": precision if runtime == "portable" else None,
            "compute_units": _units(runtime, compute_units),
        }
        for package, predictions in zip(packages, every, strict=True)
    ]
    if as_json:
        show_json(found)
    else:
        show(tabled([_told(row) for row in found]))
    if unkept:
        exit_unkept(unkept)


def _told(row: dict[str, Any]) -> dict[str, object]:
    """A package's row for a reader."""
    return {
        "Package": row["package"],
        "Top-1 (± standard error)": f"{row['top1']:.2f} ± {row['top1_stderr']:.2f}",
        "Top-5": f"{row['top5']:.2f}",
        "Images": f"{row['images']:,}" + (f" ({row['skipped_images']} skipped)" if row["skipped_images"] else ""),
        "Runtime": row["runtime"] if row["runtime"] == "portable" else f"{row['runtime']}, {row['compute_units']}",
        "Precision": row["precision"] or "as typed",
    }


def _units(runtime: RuntimeName, compute_units: str) -> str:
    """Those that predicted."""
    if runtime != "coreai":
        return compute_units if runtime == "coreml" else "cpu"
    from coreml_prune_bench.runtimes.coreai import units_here

    return units_here(compute_units)


def _evaluated(
    packages: list[Path],
    data: str,
    asked: Preprocessing,
    *,
    runtime: RuntimeName,
    precision: Precision,
    compute_units: str,
    class_map: Path | None,
    output: str | None,
    skip_bad_images: bool,
    image_cache: bool,
    results: Path | None,
    names: list[tuple[str, str]],
    there: "tuple[Where, HowOnCluster] | None",
) -> tuple[list[Predictions], tuple[str, ...], Exception | None]:
    """Of each package, what it predicts; what was skipped; and what kept a record from being written."""
    from coreml_prune_bench.accuracy.class_labels import read_class_map
    from coreml_prune_bench.accuracy.evaluate import evaluate
    from coreml_prune_bench.accuracy.runtime import PORTABLE, Evaluation
    from coreml_prune_bench.accuracy.watched import watched_loader
    from coreml_prune_bench.bench.contention import tell_if_busy
    from coreml_prune_bench.bench.given import Given, Measured, file_name, record_of
    from coreml_prune_bench.data.halves import open_data_or_part
    from coreml_prune_bench.records.chance import guesses
    from coreml_prune_bench.records.store import Store

    started = time.perf_counter()
    reporter = Reporter()
    classes = read_class_map(class_map) if class_map else None
    opened = open_data_or_part(data)
    evaluation = PORTABLE if runtime == "portable" else Evaluation(runtime, _units(runtime, compute_units))
    given = [Given.at(package) for package in packages] if results else []
    machines: tuple[str, ...] = ()
    if there:
        from coreml_prune_bench.cluster.accuracy import Asks, evaluate_on_cluster

        where, how = there
        asks = Asks(tuple(packages), asked, precision, classes, output, skip_bad_images, image_cache)
        found = evaluate_on_cluster(where, how, asks, opened, reporter)
        every, skipped, machines, threads = found.predictions, found.skipped, found.machines, how.threads
    else:
        tell_if_busy(reporter.say)
        with reporter.steps(f"{len(packages)} packages", 1) as steps:
            every, skipped = evaluate(
                packages,
                opened.val,
                asked,
                load=watched_loader(runtime, precision=precision, compute_units=compute_units),
                class_map=classes,
                output=output,
                skip_bad_images=skip_bad_images,
                image_cache=image_cache,
                say=reporter.say,
                progress=steps.update,
            )
        threads = evaluation.threads
    for package, predictions in zip(packages, every, strict=True):
        if line := guesses(predictions, len(opened.classes)):
            reporter.warn(f"{package}: {line}")
    unkept: Exception | None = None
    if results:
        seconds = time.perf_counter() - started
        measured = Measured(
            opened, asked, evaluation, precision, class_map, output, skipped, seconds, threads, machines
        )
        try:
            store = Store(results)
            for one, name, predictions in zip(given, names, every, strict=True):
                record = record_of(one, name, predictions, measured)
                store.write_record(file_name(record), record)
            reporter.say(f"{len(packages)} record{'s' if packages[1:] else ''} in {results / 'records'}")
        except (OSError, BenchError) as error:  # such as a disk that is full now
            unkept = error
    return every, skipped, unkept
