"""`compare`: two packages on the same images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from coreml_prune_bench.cli.options import (
    ClassMapOption,
    JsonOption,
    LimitOption,
    OutputNameOption,
    PackageArgument,
    PrecisionOption,
    RequireOption,
    SkipOption,
)
from coreml_prune_bench.cli.output import show, show_json, tabled
from coreml_prune_bench.cli.preprocessing import takes_preprocessing
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.models.preprocessing import Preprocessing

_SHOWN = 20


@takes_preprocessing()
def compare(
    first: PackageArgument,
    second: PackageArgument,
    data: Annotated[
        str,
        typer.Option(
            "--data", metavar="SPEC", help="`digits`, `imagefolder:PATH`, `imagenet:PATH`, `hf:NAME` or `hf:PATH`."
        ),
    ],
    precision: PrecisionOption = "float32",
    class_map: ClassMapOption = None,
    output: OutputNameOption = None,
    limit: LimitOption = None,
    asked: Preprocessing = Preprocessing(),
    skip_bad_images: SkipOption = False,
    rules: Annotated[
        Path | None,
        typer.Option("--rules", metavar="FILE", help="As `gate` takes it: what is allowed.  [gate's defaults]"),
    ] = None,
    require: RequireOption = None,
    as_json: JsonOption = False,
) -> None:
    """Two packages side by side on the val split: which images changed, classes, size, sparsity by layer, verdict.

    For example: `compare old.mlpackage new.mlpackage --data imagefolder:/data/x --require "top1 >= 75"`

    The verdict is that of `gate`, the first package as the baseline, and so are the exit codes. 0: passed. 1: the
    second package is worse, or misses an absolute rule. 2: it could not be compared.
    """
    from coreml_prune_bench.accuracy.class_labels import read_class_map
    from coreml_prune_bench.data.halves import open_data_or_part, with_limit
    from coreml_prune_bench.gating.checks import exit_code_of
    from coreml_prune_bench.gating.compare import compare as compare_measured
    from coreml_prune_bench.gating.compare import measure
    from coreml_prune_bench.gating.limits import RuleSet, read_rules

    classes = read_class_map(class_map) if class_map else None
    book = (read_rules(rules) if rules else RuleSet()).requiring(require or ())
    opened = open_data_or_part(with_limit(data, limit))
    with Reporter().steps("comparing", 1) as steps:
        measured = measure(
            [first, second],
            opened,
            asked,
            precision=precision,
            class_map=classes,
            output=output,
            skip_bad_images=skip_bad_images,
            progress=steps.update,
        )
    found = compare_measured(measured[0], measured[1], opened, precision, book)
    if as_json:
        show_json(found.as_dict())
    else:
        show(_told(found))
    raise typer.Exit(exit_code_of([found.row]))


def _told(found: Any) -> str:
    from coreml_prune_bench.gating.reports import happened, told_check

    names = ("First", "Second")
    shown = [
        {
            "": name,
            "Package": found.packages[side],
            "Top-1": f"{100 * found.top1[side]:.2f}",
            "Top-5": f"{100 * found.top5[side]:.2f}",
            "weight.bin (bytes)": f"{found.weight_bytes[side]:,}",
            "Package (bytes)": f"{found.package_bytes[side]:,}",
            "Whole-Model Sparsity": _percent(found.whole_model_sparsity[side]),
        }
        for side, name in enumerate(names)
    ]
    changed = (
        f"of {found.images:,} images of {found.data}: {len(found.lost)} lost, {len(found.gained)} gained, "
        f"{found.rethought} wrong in another way"
    )
    classes = [
        {"Class": c.name, "Images": c.images, "Lost": c.lost, "Gained": c.gained} for c in found.classes[:_SHOWN]
    ]
    layers = [
        {
            "Weight": layer.name,
            **{f"{name}: Sparsity": _percent(layer.sparsity[side]) for side, name in enumerate(names)},
            **{f"{name}: Bytes": _count(layer.size_bytes[side]) for side, name in enumerate(names)},
        }
        for layer in found.layers
        if layer.sparsity[0] != layer.sparsity[1] or layer.size_bytes[0] != layer.size_bytes[1]
    ]
    parts = [happened(found.row), tabled(shown), changed]
    parts += [
        f"{what}: {', '.join(ids[:_SHOWN])}{_more(len(ids), ' ')}"
        for what, ids in (("lost", found.lost), ("gained", found.gained))
        if ids
    ]
    if classes:
        parts.append(tabled(classes) + _more(len(found.classes), "\n"))
    parts.append(tabled(layers) if layers else "every weight has the same sparsity and size in both")
    parts.append("\n".join([*(told_check(check) for check in found.row.checks), f"verdict: {found.row.verdict}"]))
    return "\n\n".join(parts)


def _more(count: int, before: str) -> str:
    return f"{before}and {count - _SHOWN} more; --json has them all" if count > _SHOWN else ""


def _percent(fraction: float | None) -> str:
    return "?" if fraction is None else f"{100 * fraction:.2f} %"


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
