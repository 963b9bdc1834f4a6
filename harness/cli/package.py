"""`accuracy`, `inspect`, `predict` and `export-onnx`: any package, ours or not."""

from pathlib import Path
from typing import Annotated, Any

import typer

from coreml_prune_bench.cli.options import (
    FunctionOption,
    JsonOption,
    PackageArgument,
    PrecisionOption,
    TimeLimitOption,
)
from coreml_prune_bench.cli.output import show, show_json, show_line, tabled
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.core.time_limit import within


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
