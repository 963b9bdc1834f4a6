"""Records of packages that nobody built here: measured as they are, under the names that the user gives them.

`table`, `report`, `gate` and data frames take them as any others.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coreml_prune_bench.accuracy.class_labels import read_class_map
from coreml_prune_bench.accuracy.runtime import Evaluation
from coreml_prune_bench.aimodel.programs import is_core_ai, read_package
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.escaping import shell_command, shell_option
from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.core.keys import code_behind, key_of
from coreml_prune_bench.data import DataSet
from coreml_prune_bench.mlprogram.summary import PackageSummary, WeightSummary
from coreml_prune_bench.models.preprocessing import Preprocessing
from coreml_prune_bench.records.accuracy import (
    CORE_ML,
    GIVEN,
    Data,
    Layer,
    Network,
    Package,
    Provenance,
    Pruning,
    Record,
)
from coreml_prune_bench.records.predictions import Precision, Predictions
from coreml_prune_bench.records.provenance import provenance

SUITE = "packages"


@dataclass(frozen=True)
class Measured:
    """How packages were measured, apart from what each predicted.

    seconds: of all of them together. threads: of a prediction, if they are known. machines: of a cluster, where those
    predicted and not this one.
    """

    data: DataSet
    asked: Preprocessing
    evaluation: Evaluation
    precision: Precision
    class_map: Path | None
    output: str | None
    skipped: tuple[str, ...]
    seconds: float
    threads: int | None
    machines: tuple[str, ...] = ()


def names_of(packages: Sequence[Path], given: Sequence[str] | None) -> list[tuple[str, str]]:
    """Network and config of each package: "NETWORK" or "NETWORK, CONFIG", else the name of its folder.

    Raises BenchError where there is not a name for each, or one twice.
    """
    if given and len(given) != len(packages):
        raise BenchError(f"--name: expected one for each of {len(packages)} packages, got {len(given)}")
    names = []
    for text in given or [package.resolve().stem for package in packages]:
        network, _, config = (part.strip() for part in text.partition(","))
        if not network:
            raise BenchError(f'--name {text!r}: expected "NETWORK" or "NETWORK, CONFIG"')
        names.append((network, config))
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise BenchError(
            f"--name: {count} packages are called {', '.join(filter(None, name))!r}; give names that differ"
        )
    return names


@dataclass(frozen=True)
class Given:
    """A package as it was before it was measured."""

    path: Path
    summary: PackageSummary
    sha256: str

    @classmethod
    def at(cls, package: Path) -> "Given":
        """Raises PackageError where it cannot be read."""
        sha256 = tree_hash(package)
        return cls(package, read_package(package), sha256)


def record_of(given: Given, name: tuple[str, str], predictions: Predictions, how: Measured) -> Record:
    """A record that says what one package predicted.

    One without compressed weights that is named by its network alone is the dense one, which others are compared with.
    With a config it is a row as others are: channels may be pruned away, or zeros be stored as weights.
    Raises BenchError where the package is another one by now.
    """
    package, summary, data, view = given.path, given.summary, how.data, how.asked.view
    if tree_hash(package) != given.sha256:
        raise BenchError(f"{package} was changed while it was measured: measure it again")
    network, config = name
    sha256, dense = given.sha256, not config and not _compressed(summary)
    subject = {"packages": network, "val_data": data.val.fingerprint, "view": view.changes()}
    runtime = how.evaluation.described
    if runtime.name == "portable":
        runtime = runtime.model_copy(update={"precision": how.precision})
    inputs: dict[str, Any] = {
        **subject,
        **how.evaluation.inputs,
        "precision": runtime.precision,
        "package": sha256,
        "name": [network, config],
        "preprocessing": how.asked.changes(),
        "class_map": read_class_map(how.class_map) if how.class_map else {},
        "output": how.output,
    }
    return Record(
        status="measured",
        key=key_of(inputs | {"trial": 0}),
        config_key=key_of(inputs),
        subject_key=key_of(subject),
        suite=SUITE,
        trial=0,
        network=Network(name=network, title=network, weights=GIVEN, trained=False),
        pruning=Pruning(
            algorithm="dense" if dense else "given",
            title="n/a" if dense else "As given",
            config=config or _config(summary, dense=dense),
            sparsity=0.0 if dense else None,
            scope="none" if dense else _scope(summary),
            settings={"command": _command(package, name, how)},
        ),
        data=Data(
            spec=data.spec,
            split=data.val.name,
            fingerprint=data.val.fingerprint,
            train_fingerprint=None,
            classes=len(data.classes),
            image_size=data.image_size,
            preprocessing=how.asked,
            skipped=how.skipped,
            revision=data.revision,
            place=data.place,
        ),
        provenance=_provenance(how),
        package=Package(
            sha256=sha256,
            weight_bytes=summary.weight_bytes,
            package_bytes=summary.package_bytes,
            whole_model_sparsity=summary.whole_model_sparsity or 0.0,
            deployment_target=summary.deployment_target,
            operations=summary.operations,
            layers=tuple(
                Layer(name=weight.name, target=None, sparsity=weight.sparsity or 0.0, storage=weight.storage)
                for weight in _compressed(summary)
            ),
        ),
        package_format="aimodel" if is_core_ai(package) else CORE_ML,
        runtime=runtime,
        predictions=predictions,
        code=code_behind(*how.evaluation.code),
    )


def _provenance(how: Measured) -> Provenance:
    made = provenance(evaluate_seconds=how.seconds, predict_threads=how.threads)
    return made.model_copy(update={"host": ", ".join(how.machines)}) if how.machines else made


def file_name(record: Record) -> str:
    """Of its file, without the suffix: readable, and different for every key."""
    letters = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in record.network.name)
    return f"{letters[:60]}--{record.pruning.algorithm}--{record.key[:12]}"


def _matrices(summary: PackageSummary) -> list[WeightSummary]:
    return [weight for weight in summary.weights if len(weight.shape) >= 2]


def _compressed(summary: PackageSummary) -> list[WeightSummary]:
    return [weight for weight in _matrices(summary) if weight.storage != "dense"]


def _scope(summary: PackageSummary) -> str:
    return f"{len(_compressed(summary))} of {len(_matrices(summary))} weights, as found"


def _config(summary: PackageSummary, *, dense: bool) -> str:
    """What it holds, where nobody has said a config."""
    if dense:
        largest = max(summary.weights, key=lambda weight: weight.elements, default=None)
        return "Float32" if largest and largest.dtype in ("fp32", "float32") else "Float16"
    forms = Counter(weight.storage for weight in _compressed(summary)).most_common(1)[0][0]
    zeros = f", {100 * summary.whole_model_sparsity:.0f} % zeros" if summary.whole_model_sparsity else ""
    return f"{forms}{zeros}"


def _command(package: Path, name: tuple[str, str], how: Measured) -> str:
    """What makes a record again, as a shell has it."""
    command = ["coreml-prune-bench", "accuracy", package.name, *shell_option("--data", how.data.spec)]
    for option, value in how.asked.changes().items():
        text = ",".join(f"{number:g}" for number in value) if isinstance(value, list) else str(value)
        command += shell_option(f"--{option}", text)
    if how.evaluation.runtime != "portable":
        command += ["--runtime", how.evaluation.runtime, "--compute-units", how.evaluation.compute_units]
    elif how.precision != "float32":
        command += ["--precision", how.precision]
    if how.class_map:
        command += shell_option("--class-map", how.class_map.name)
    if how.output:
        command += shell_option("--output", how.output)
    if how.skipped:
        command.append("--skip-bad-images")
    return shell_command([*command, "--results", "DIR", *shell_option("--name", ", ".join(filter(None, name)))])
