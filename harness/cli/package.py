"""`accuracy`, `inspect`, `predict` and `export-onnx`: any package, ours or not."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from coreml_prune_bench.cli.options import (
    AnyRuntimeOption,
    ClassMapOption,
    ComputeUnitsOption,
    FunctionOption,
    JsonOption,
    LimitOption,
    NoImageCacheOption,
    OutputNameOption,
    PackageArgument,
    PrecisionOption,
    SkipOption,
    TimeLimitOption,
)
from coreml_prune_bench.cli.output import show, show_json, show_line, tabled
from coreml_prune_bench.cli.preprocessing import takes_preprocessing
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.core.time_limit import within
from coreml_prune_bench.models.preprocessing import Preprocessing
from coreml_prune_bench.records.predictions import Precision, Predictions
from coreml_prune_bench.runtimes.protocol import RuntimeName


@takes_preprocessing()
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
            metavar="DIR",
            help="Keep a record of each package there, for `gate`, `table` and `report`.  [none is kept]",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar='"NETWORK[, CONFIG]"',
            help="What its record is called, one for each package, in order. A network's package without compressed "
            "weights is its dense one.  [as the package]",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Top-1 and top-5 of any image classification packages, ours or not, on the val split of a data set.

    Several packages share one pass over the images. A package that names its classes is matched to the data's by name,
    whatever their order; one with some of the names and others is refused.

    For example: `accuracy m.mlpackage --data imagefolder:/data/x --mean 0.5 --std 0.5 --crop scaleFill`

    An image input normalizes its pixels itself. For an array say which numbers it takes, unless its program begins
    with normalizing them; a warning tells where another way to prepare images is right more often.
    """
    from coreml_prune_bench.bench.given import names_of
    from coreml_prune_bench.core.files import refuse_folder
    from coreml_prune_bench.data.halves import with_limit

    data = with_limit(data, limit)
    if name and results is None:
        raise BenchError("--name names records, which --results DIR keeps: give both")
    names = names_of(packages, name) if results else []
    if results:
        refuse_folder(results, f"--results {results}")
    every, skipped = within(
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
        return
    shown = [
        {
            "Package": row["package"],
            "Top-1 (± standard error)": f"{row['top1']:.2f} ± {row['top1_stderr']:.2f}",
            "Top-5": f"{row['top5']:.2f}",
            "Images": f"{row['images']:,}" + (f" ({row['skipped_images']} skipped)" if row["skipped_images"] else ""),
            "Runtime": row["runtime"] if runtime == "portable" else f"{row['runtime']}, {row['compute_units']}",
            "Precision": row["precision"] or "as typed",
        }
        for row in found
    ]
    show(tabled(shown))


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
) -> tuple[list[Predictions], tuple[str, ...]]:
    from coreml_prune_bench.accuracy.class_labels import read_class_map
    from coreml_prune_bench.accuracy.evaluate import evaluate
    from coreml_prune_bench.accuracy.runtime import PORTABLE, Evaluation
    from coreml_prune_bench.accuracy.watched import watched_loader
    from coreml_prune_bench.bench.contention import tell_if_busy
    from coreml_prune_bench.bench.given import Measured, file_name, record_of
    from coreml_prune_bench.data.halves import open_data_or_part
    from coreml_prune_bench.records.chance import guesses
    from coreml_prune_bench.records.store import Store

    started = time.perf_counter()
    reporter = Reporter()
    tell_if_busy(reporter.say)
    classes = read_class_map(class_map) if class_map else None
    opened = open_data_or_part(data)
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
    for package, predictions in zip(packages, every, strict=True):
        if line := guesses(predictions, len(opened.classes)):
            reporter.warn(f"{package}: {line}")
    if results:
        evaluation = Evaluation(runtime, compute_units) if runtime == "coreml" else PORTABLE
        seconds = time.perf_counter() - started
        how = Measured(opened, asked, evaluation, precision, class_map, output, skipped, seconds)
        store = Store(results)
        for package, name, predictions in zip(packages, names, every, strict=True):
            record = record_of(package, name, predictions, how)
            store.write_record(file_name(record), record)
        reporter.say(f"{len(packages)} record{'s' if packages[1:] else ''} in {results / 'records'}")
    return every, skipped


def inspect(
    package: PackageArgument,
    as_json: JsonOption = False,
) -> None:
    """What a package holds: inputs, outputs, operations, and each weight's storage, sparsity and size.

    For example: `inspect m.mlpackage`
    """
    from coreml_prune_bench.aimodel.programs import is_core_ai, read_package

    with Reporter().steps("reading", 1):
        summary = read_package(package)
    if as_json:
        show_json(summary.model_dump_json(indent=2))
        return
    for kind, features in (("input", summary.inputs), ("output", summary.outputs)):
        for feature in features:
            space = f" {feature.color_space}" if feature.color_space else ""
            show_line(f"{kind}: {feature.name}, {feature.kind}{space} {list(feature.shape)} {feature.dtype}")
    core_ai = is_core_ai(package)
    version = "" if core_ai else f" (specification version {summary.specification_version})"
    show(f"deployment target: {summary.deployment_target}{version}")
    show_line("operations: " + ", ".join(f"{name} {count}" for name, count in summary.operations.items()))
    shown = [
        {
            "Weight": weight.name,
            "Shape": "x".join(map(str, weight.shape)),
            "Type": weight.dtype,
            "Storage": weight.storage,
            "Bits": "?" if weight.bits is None else weight.bits,
            "Sparsity": "?" if weight.sparsity is None else f"{100 * weight.sparsity:.2f} %",
            "Bytes": f"{weight.size_bytes:,}",
        }
        for weight in summary.weights
    ]
    show()
    show(tabled(shown))
    whole = summary.whole_model_sparsity
    show()
    file = "main.mlirb" if core_ai else "weight.bin"
    sizes = f"{file}: {summary.weight_bytes:,} bytes; package: {summary.package_bytes:,} bytes"
    show(f"elements: {summary.elements:,}; {sizes}")
    show(f"whole-model sparsity (weights of rank 2 and more): {'?' if whole is None else f'{100 * whole:.2f} %'}")


def predict(
    package: PackageArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=VALUE",
            help="An image file, a .npy or .json file of numbers, or a number, as the input NAME is declared (see "
            "`inspect`). Repeat it for each input.",
        ),
    ] = None,
    resize: Annotated[
        bool,
        typer.Option(
            "--resize",
            help="Fit an image of another size: scale its shorter side, crop the centre, at 224x224 as torchvision's "
            "Resize(256) and CenterCrop(224). Without it such an image is refused.",
        ),
    ] = False,
    function: FunctionOption = None,
    precision: PrecisionOption = "float32",
    top: Annotated[
        int, typer.Option("--top", min=1, help="How many of the likeliest classes, or highest positions, are shown.")
    ] = 5,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            metavar="DIR",
            help="Write outputs there: images as PNG, arrays as .npy.",
        ),
    ] = None,
    time_limit: TimeLimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """One prediction of any package, ours or not, in the portable runtime.

    For example: `predict m.mlpackage --input image=cat.jpg --resize`

    Images are converted to the colours that the input declares; their EXIF orientation is not applied, and nothing
    else is done to them. Classes are named where the package is a classifier; other outputs are summed up, and where
    one is a vector its highest positions are listed.
    """
    from coreml_prune_bench.accuracy.predict import predict as run_once

    with Reporter().steps("predicting", 1):
        result = within(
            time_limit,
            run_once,
            package,
            inputs or [],
            function=function,
            precision=precision,
            resize=resize,
            top=top,
            output_dir=output_dir,
        )
    if as_json:
        show_json(result)
        return
    show_line(f"runtime: {result['runtime']}, {result['precision']}")
    for name, told in result["inputs"].items():
        show_line(f"input {name}: {told}")
    for name, output in result["outputs"].items():
        show_line(f"output {name}: {_told(output)}")
        if rows := output.get("top"):
            shown = [{key.capitalize(): _digits(value) for key, value in row.items()} for row in rows]
            show(f"\n{tabled(shown)}\n")


def _digits(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


def _told(output: dict[str, Any]) -> str:
    """An output of `predict` in a line."""
    file = f"; written to {output['file']}" if "file" in output else ""
    match output["kind"]:
        case "label":
            return str(output["value"])
        case "probabilities":
            return f"the {len(output['top'])} likeliest of {output['classes']:,} classes"
        case "image":
            return f"image {output['mode']} {output['width']}x{output['height']}{file}"
    line = f"{output['dtype']} {output['shape']}"
    if "min" in output:
        line += f", {output['min']} to {output['max']}"
    if "not_finite" in output:
        line += f", {output['not_finite']:,} not finite (NaN or infinity)"
    return f"{line}, first {', '.join(map(str, output['first']))}{file}"


def export_onnx(
    package: PackageArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The file to write.")],
    function: FunctionOption = None,
    precision: PrecisionOption = "float32",
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.onnx if it exists.")] = False,
) -> None:
    """Write what the portable runtime runs as an ONNX file, weights decompressed to Float32.

    For example: `export-onnx m.mlpackage m.onnx`

    The file is checked by ONNX and loaded once in ONNX Runtime before it takes its place. Flexible inputs get their
    declared default shapes; `batch` is a size that any value will do for. An image input takes uint8
    [batch, height, width, channels], channels R, G, B whatever the package's own order. Weights of more than 2 GB
    stand in a file beside it.
    """
    from coreml_prune_bench.runtimes.portable.export import export_onnx as write

    with Reporter().steps("exporting", 1):
        exported = write(package, out, function=function, precision=precision, force=force)
    for value in exported.inputs:
        show_line(f"input {value}")
    for value in exported.outputs:
        show_line(f"output {value}")
    if exported.classes:
        show(f"classes: {exported.classes:,}, in the model's metadata as `classes` (JSON)")
    for file in exported.files:
        show_line(f"{file}: {file.stat().st_size:,} bytes")
