"""`parity`: Apple's own runtime beside the portable one, image by image."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from coreml_prune_bench.cli.options import (
    RESULTS,
    ClassMapOption,
    JsonOption,
    LimitOption,
    OutputNameOption,
    PackageArgument,
    ResultsOption,
    SkipOption,
    compute_units_of,
    exit_unkept,
    exit_with_failures,
    finite,
)
from coreml_prune_bench.cli.output import show, show_json, tabled
from coreml_prune_bench.cli.preprocessing import takes_preprocessing
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.models.preprocessing import Preprocessing
from coreml_prune_bench.runtimes.protocol import RuntimeName

if TYPE_CHECKING:
    from collections.abc import Callable

    from coreml_prune_bench.accuracy.parity import Agreement
    from coreml_prune_bench.accuracy.units import UnitVerdict
    from coreml_prune_bench.records.accuracy import Runtime
    from coreml_prune_bench.records.parity import ParityRecord

_EACH = ["cpu_only", "cpu_and_gpu", "cpu_and_ne", "all"]


@takes_preprocessing()
def parity(
    package: PackageArgument,
    data: Annotated[
        str,
        typer.Option(
            "--data", metavar="SPEC", help="`digits`, `imagefolder:PATH`, `imagenet:PATH`, `hf:NAME` or `hf:PATH`."
        ),
    ],
    compute_units: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-units",
            help="Of cpu_only, cpu_and_gpu, cpu_and_ne and all; several with commas.  [each of them that is here]",
        ),
    ] = None,
    against: Annotated[
        Literal["apple"],
        typer.Option("--against", help="Apple's runtime: Core ML for a .mlpackage, Core AI for a .aimodel."),
    ] = "apple",
    class_map: ClassMapOption = None,
    output: OutputNameOption = None,
    limit: LimitOption = None,
    asked: Preprocessing = Preprocessing(),
    min_agreement: Annotated[
        float,
        typer.Option(
            "--min-agreement", min=0, max=100, help="Exit code 1 below this top-1 agreement, in %.", callback=finite
        ),
    ] = 0.0,
    skip_bad_images: SkipOption = False,
    results: ResultsOption = RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Compare Apple's runtime, on each choice of compute units, with the portable runtime on the same images.

    For example: `parity m.mlpackage --data imagefolder:/data/imagenet --limit 500`, on a Mac, or
    `parity m.aimodel --data imagefolder:/data/imagenet --limit 100`, on Linux too

    Core AI takes about a second an image, on one core. For each choice: top-1 agreement, error of the scores,
    accuracy, and a verdict. A unit is wrong where more than 5 % of the images are further off than four times what
    rounding to Float16 makes of them, 32 times in Core AI, which adds up in Float16; exit code 1 then. What was found
    for each image is kept in records, RESULTS/parity/*.json.
    """
    from coreml_prune_bench.accuracy.class_labels import read_class_map
    from coreml_prune_bench.accuracy.parity import agreement, compare
    from coreml_prune_bench.accuracy.units import judge
    from coreml_prune_bench.accuracy.watched import watched_loader
    from coreml_prune_bench.aimodel.programs import is_core_ai
    from coreml_prune_bench.core.files import refuse_folder, tree_hash
    from coreml_prune_bench.data.halves import open_data_or_part, with_limit
    from coreml_prune_bench.latency.machines import this_machine
    from coreml_prune_bench.records.parity import ParityRecord, write_parity_record
    from coreml_prune_bench.records.provenance import provenance

    refuse_folder(results / "parity", f"--results {results}")
    runtime: RuntimeName = "coreai" if is_core_ai(package) else "coreml"
    portable = this_machine("portable")[0]
    units, described = _apple(runtime, compute_units_of(compute_units, []))
    data = with_limit(data, limit)
    classes = read_class_map(class_map) if class_map else None
    split = open_data_or_part(data).val
    with Reporter().steps(package.name, 1) as steps:
        compared = compare(
            package,
            split,
            [watched_loader(runtime, compute_units=unit) for unit in units],
            (watched_loader("portable", precision="float32"), watched_loader("portable", precision="float16")),
            asked,
            output=output,
            class_map=classes,
            skip_bad_images=skip_bad_images,
            progress=steps.within("comparing"),
        )
    records = [
        ParityRecord(
            package=str(package.name),
            sha256=tree_hash(package),
            data=data,
            fingerprint=split.fingerprint,
            device=portable.device,
            runtimes=(described(unit), portable.runtime("cpu")),
            provenance=provenance(),
            **asdict(one),
        )
        for unit, one in zip(units, compared, strict=True)
    ]
    unkept: OSError | None = None
    try:
        for record in records:
            write_parity_record(results, record)
    except OSError as error:
        unkept = error
    found = [
        (unit, agreement(one), judge(one, runtime=runtime, units=len(units)))
        for unit, one in zip(units, compared, strict=True)
    ]
    if as_json:
        show_json([{"compute_units": unit, **asdict(said), **asdict(judged)} for unit, said, judged in found if judged])
    else:
        show(_told(records[0], found))
        if unkept is None:
            Reporter().say(f"records in {results / 'parity'}")
    if unkept:
        exit_unkept(unkept)
    problems = [
        f"{unit}: top-1 agreement {100 * said.top1_agreement:.2f} %, expected {min_agreement:g} % or more"
        for unit, said, _ in found
        if 100 * said.top1_agreement < min_agreement
    ]
    problems += [
        f"{unit}: wrong: {judged.off:,} of {judged.images:,} images are further off than rounding to Float16 explains"
        for unit, _, judged in found
        if judged and judged.verdict == "wrong"
    ]
    if problems:
        exit_with_failures(problems)


def _apple(runtime: RuntimeName, given: list[str]) -> "tuple[list[str], Callable[[str], Runtime]]":
    """The choices of compute units to compare, and how a record names Apple's runtime on each.

    Raises BenchError where it is not here, or not on those units.
    """
    from coreml_prune_bench.latency.machines import core_ai, this_machine

    if runtime == "coreml":
        return given or _EACH, this_machine("coreml")[0].runtime
    from coreml_prune_bench.runtimes.coreai import all_units_here

    return all_units_here(given, _EACH), core_ai


def _told(record: "ParityRecord", found: "list[tuple[str, Agreement, UnitVerdict | None]]") -> str:
    said, judged = found[0][1:]
    head = (
        f"{record.package} on {record.device.name}, {record.device.chip}, {record.runtimes[0].version}, beside the "
        f"portable runtime in Float32 on {said.images:,} images (top-1 {100 * said.accuracies[1]:.2f} %)"
    )
    table = tabled([_row(*one) for one in found])
    if judged is None or judged.detectable is None:
        return f"{head}\n\n{table}"
    from coreml_prune_bench.records.parity import factor_of

    power = (
        f"Off: images further off than {factor_of(record.runtimes[0].name):g} times what rounding to Float16 makes of "
        "them. Wrong: more than 5 % are. "
        f"{said.images:,} images find a unit that is off on {100 * judged.detectable:.1f} % with a power of 80 %."
    )
    return f"{head}\n\n{table}\n\n{power}"


def _row(unit: str, said: "Agreement", judged: "UnitVerdict | None") -> dict[str, str]:
    factor = "-" if judged is None or judged.factor is None else f"{judged.factor:.2g}"
    return {
        "Compute Units": unit,
        "Verdict": judged.verdict if judged else "-",
        "Off": f"{judged.off:,}" if judged else "-",
        "Error, times Rounding": factor,
        "Mean Error": f"{said.mean_error:.3g} ({100 * said.mean_relative_error:.2g} % of the span)",
        "Largest Error": f"{said.largest_error:.3g}",
        "Top-1 Agreement": f"{100 * said.top1_agreement:.2f} %",
        "Top-1": f"{100 * said.accuracies[0]:.2f} %",
        "Difference ± Standard Error": f"{100 * said.difference:+.2f} ± {100 * said.difference_stderr:.2f} points",
    }
