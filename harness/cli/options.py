"""Options that several commands take, and what they mean."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from coreml_prune_bench.core.errors import BenchError, told
from coreml_prune_bench.core.progress import say
from coreml_prune_bench.models.own import is_spec
from coreml_prune_bench.records.mirror import Mirror, is_address
from coreml_prune_bench.records.predictions import Precision
from coreml_prune_bench.report.formats import Format
from coreml_prune_bench.runtimes.protocol import COMPUTE_UNITS, MLPackageRuntime, RuntimeName

RESULTS = Path("results/local")


def finite(value: float | None) -> float | None:
    """A number of an option: NaN and infinity, which are within every limit, are none."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def folder_or_address(text: str | Path) -> str | Path:
    return str(text) if is_address(str(text)) else Path(text)


def copied_here(context: typer.Context, given: str | Path | None) -> Path | None:
    """A folder; of an address its copy, with the records from there. What is new goes there when the command ends."""
    if given is None or isinstance(given, Path):
        return given
    mirror = Mirror(given)
    mirror.pull()
    context.call_on_close(mirror.push)
    return mirror.folder


SuiteOption = Annotated[
    str,
    typer.Option("--suite", help="A shipped suite, such as quick, digits or imagenet, or the path of a .toml file."),
]
ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="The network: mobilenet_v2, ..., or one of yours as `run --model` takes it."),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="[NETWORK=]SPEC",
        help="The images: `digits`, `imagefolder:PATH`, `imagenet:PATH`, `hf:NAME` or `hf:PATH`, instead of the "
        "suite's default; with NETWORK= for that network alone, once for each.  [the suite's]",
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="DIR", help="Folder with pre-trained weights, DIR/NETWORK.pth.  [they are downloaded]"
    ),
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option("--model", "--models", metavar="NAME", help="Only these networks; several with commas.  [all]"),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "--models",
        metavar="NAME|SPEC",
        help="Only these networks of the suite, several with commas, or one of yours: `torchvision:NAME`, `timm:NAME` "
        "or `PATH.py:FUNCTION`, which returns a torch.nn.Module. May be repeated.  [all of the suite]",
    ),
]
TrialsOption = Annotated[
    int | None,
    typer.Option("--trials", min=1, help="Trials of each algorithm that depends on the order of the data."),
]
PackageFormatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--package-format",
        help="What pruned networks are converted to, in place of the suite's: mlpackage (Core ML), aimodel (Core AI, "
        "with the extra `coreai`), or both with a comma.",
    ),
]
ResultsOption = Annotated[
    Path,
    typer.Option(
        "--results",
        metavar="DIR|ADDRESS",
        help="Where packages and records are kept, and found again: a folder, or an address that fsspec knows, such as "
        "s3://bucket/results, with the extra `remote`.",
        parser=folder_or_address,
        callback=copied_here,
    ),
]
SkipOption = Annotated[
    bool,
    typer.Option("--skip-bad-images", help="Leave out images that do not decode; records and tables say how many."),
]
NoImageCacheOption = Annotated[
    bool,
    typer.Option(
        "--no-image-cache", help="Decode images anew and keep none: prepared ones go to the cache folder otherwise."
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where networks are trained or fitted: cpu, cuda, cuda:N or mps; `auto` takes a GPU if there is one.",
    ),
]
CheckpointOption = Annotated[
    float,
    typer.Option(
        "--checkpoint-minutes",
        min=0,
        help="How often a training's state is saved, to go on from if killed.",
        callback=finite,
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="How tables are written to standard output.")]
FunctionOption = Annotated[
    str | None, typer.Option("--function", metavar="NAME", help="A function of the package.  [its default one]")
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="float32: computed in Float32 throughout. float16: results that the program types as Float16 are rounded "
        "to it.",
    ),
]
RuntimeOption = Annotated[
    MLPackageRuntime,
    typer.Option("--runtime", help="What predicts: the portable runtime, on any machine, or Core ML, on a Mac."),
]
AnyRuntimeOption = Annotated[
    RuntimeName,
    typer.Option(
        "--runtime",
        help="What predicts: the portable runtime, on any machine, Core ML, on a Mac, or Core AI, for a .aimodel on "
        "Linux and Macs.",
    ),
]
ComputeUnitsOption = Annotated[
    str,
    typer.Option(
        "--compute-units",
        help="Core ML's: all, cpu_and_ne, cpu_and_gpu or cpu_only. Core AI's on a Mac with macOS 27; else cpu_only.",
    ),
]
TimeLimitOption = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        metavar="SECONDS",
        min=0,
        help="End with an error when it takes longer, whatever the package computes: it runs in a process of its own.",
        callback=finite,
    ),
]
PackageArgument = Annotated[
    Path, typer.Argument(metavar="PACKAGE", help="A .mlpackage folder that holds an ML program, or a .aimodel folder.")
]
ClassMapOption = Annotated[
    Path | None,
    typer.Option(
        "--class-map",
        metavar="FILE",
        help='Which label of the package is which class of the data: JSON, {"class": "label"}, or CSV whose first line '
        "is class,label. For a package without labels: the position of the score, from 0.  [by name]",
    ),
]
OutputNameOption = Annotated[
    str | None,
    typer.Option("--output", metavar="NAME", help="The output with the scores, of several.  [the only one]"),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=1,
        help="Only so many images of the val split, drawn at random, always the same; SPEC#500 says it too.  [all]",
    ),
]
RequireOption = Annotated[
    list[str] | None,
    typer.Option(
        "--require",
        metavar="RULE",
        help='An absolute rule, such as "top1 >= 75", "loss_against_dense <= 1", "package_mb <= 4"; docs/gate.md lists '
        "all. May be repeated.  [those of the rules]",
    ),
]
WideOption = Annotated[
    bool, typer.Option("--wide", help="Every column, as Markdown, also on a terminal; what is piped always has them.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def named_networks(values: list[str] | None) -> tuple[list[str] | None, list[str] | None]:
    """Of `--model`: names of the suite's networks, and specs of the user's own."""
    own = [value for value in values or () if is_spec(value)]  # a path may have commas
    names = split_commas([value for value in values or () if not is_spec(value)]) or []
    both = [*own, *(name for name in names if is_spec(name))]
    return [name for name in names if not is_spec(name)] or None, both or None


def split_commas(values: list[str] | None) -> list[str] | None:
    """Options that take several values take them repeated or with commas."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()] if values else None


def compute_units_of(given: list[str] | None, usual: Sequence[str]) -> list[str]:
    """Those named, several with commas, each once; `usual` if none is. Raises BenchError for another name."""
    units = split_commas(given) or usual
    for unit in units:
        if unit not in COMPUTE_UNITS:
            raise BenchError(f"--compute-units {unit!r}: expected one of {', '.join(COMPUTE_UNITS)}")
    return list(dict.fromkeys(units))


def exit_unkept(error: Exception) -> NoReturn:
    """End with exit code 2 and a line: what was measured was shown, and this kept a record of it from being written."""
    raise BenchError(f"measured as shown, but not every record is kept: {told(error)}") from error


def exit_with_failures(problems: list[str]) -> NoReturn:
    """End with exit code 1, a line for each thing that failed."""
    for problem in problems:
        say(f"failed: {problem}")
    raise typer.Exit(1)
