"""`parity`: Core ML beside the portable runtime, image by image."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreml_prune_bench.cli.options import (
    RESULTS,
    ClassMapOption,
    ComputeUnitsOption,
    JsonOption,
    PackageArgument,
    PrecisionOption,
    ResultsOption,
    SkipOption,
    exit_with_failures,
    finite,
)
from coreml_prune_bench.cli.output import show, show_json
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.report.formats import write_cells

if TYPE_CHECKING:
    from coreml_prune_bench.accuracy.parity import Agreement, ParityRecord


def parity(
    package: PackageArgument,
    data: Annotated[
        str, typer.Option("--data", metavar="SPEC", help="`digits`, `imagefolder:PATH`, `hf:NAME` or `hf:PATH`.")
    ],
    compute_units: ComputeUnitsOption = "all",
    precision: PrecisionOption = "float32",
    class_map: ClassMapOption = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many images of the val split.")] = None,
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
    """Compare Core ML with the portable runtime on the same images: top-1 agreement, error of the scores, accuracy.

    For example: `parity m.mlpackage --data imagefolder:/data/imagenet --limit 5000`

    It is how a Mac vouches for accuracies that were measured elsewhere. What was found for each image is kept in a
    record, RESULTS/parity/*.json.
    """
    from coreml_prune_bench.accuracy.class_labels import read_class_map
    from coreml_prune_bench.accuracy.parity import (
        ParityRecord,
        agreement,
        compare,
        write_record,
    )
    from coreml_prune_bench.core.files import refuse_folder, tree_hash
    from coreml_prune_bench.data.halves import open_data_or_part
    from coreml_prune_bench.latency.machines import this_machine
    from coreml_prune_bench.records.provenance import provenance
    from coreml_prune_bench.runtimes.protocol import loader

    refuse_folder(results, f"--results {results}")
    core_ml, portable = this_machine("coreml")[0], this_machine("portable")[0]
    loads = (loader("coreml", compute_units=compute_units), loader("portable", precision=precision))
    classes = read_class_map(class_map) if class_map else None
    split = open_data_or_part(data).val
    with Reporter().steps(package.name, 1) as steps:
        compared = compare(
            package,
            split,
            loads,
            limit=limit,
            class_map=classes,
            skip_bad_images=skip_bad_images,
            progress=steps.within("comparing"),
        )
    record = ParityRecord(
        package=str(package.name),
        sha256=tree_hash(package),
        data=data,
        fingerprint=split.fingerprint,
        device=core_ml.device,
        runtimes=(
            core_ml.runtime(compute_units),
            portable.runtime("cpu").model_copy(update={"precision": precision}),
        ),
        provenance=provenance(),
        **asdict(compared),
    )
    path = write_record(results, record)
    found = agreement(record)
    if as_json:
        show_json(asdict(found))
    else:
        show(_told(record, found, path))
    if 100 * found.top1_agreement < min_agreement:
        exit_with_failures(
            [f"top-1 agreement {100 * found.top1_agreement:.2f} %, expected {min_agreement:g} % or more"]
        )


def _told(record: "ParityRecord", found: "Agreement", path: Path) -> str:
    core_ml, portable = record.runtimes
    rows = {
        "images": f"{found.images:,}",
        "top-1 agreement": f"{100 * found.top1_agreement:.2f} %",
        f"top-1, Core ML ({core_ml.compute_units})": f"{100 * found.accuracies[0]:.2f} %",
        f"top-1, portable runtime ({portable.precision})": f"{100 * found.accuracies[1]:.2f} %",
        "difference ± standard error": f"{100 * found.difference:+.2f} ± {100 * found.difference_stderr:.2f} points",
        "largest error of a score, mean over images": f"{found.mean_error:.4g}, "
        f"{100 * found.mean_relative_error:.3g} % of the scores' span",
        "largest error of a score, any image": f"{found.largest_error:.4g}",
    }
    head = f"{record.package} on {record.device.name}, {record.device.chip}, {core_ml.version}"
    table = write_cells([{"Both runtimes": name, "": told} for name, told in rows.items()])
    return f"{head}\n\n{table}\n\nrecord: {path}"
