"""What is measured: packages, given by path or found in a results folder, on choices of compute units."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from coreml_prune_bench.aimodel.programs import is_core_ai
from coreml_prune_bench.core.cache_folder import cache_folder
from coreml_prune_bench.core.errors import BenchError, PackageError
from coreml_prune_bench.core.files import files_of, tree_hash
from coreml_prune_bench.mlprogram.named import AIMODEL, BYTECODE, MLPACKAGE
from coreml_prune_bench.records.accuracy import CORE_ML, Record, read_records
from coreml_prune_bench.records.latency import MeasuredPackage
from coreml_prune_bench.records.latest import newest_trials
from coreml_prune_bench.runtimes.protocol import RuntimeName


@dataclass(frozen=True)
class Target:
    """A package on one choice of compute units ("cpu" in the portable runtime), N samples a prediction."""

    path: Path
    package: MeasuredPackage
    compute_units: str
    batch_size: int = 1

    @property
    def name(self) -> str:
        """For progress and errors."""
        batch = f", batch {self.batch_size}" if self.batch_size > 1 else ""
        return f"{self.package.name}, {self.compute_units}{batch}"

    @property
    def identity(self) -> tuple[str, str, int]:
        """What tells it from the other targets of a run."""
        return str(self.path), self.compute_units, self.batch_size


def package_at(path: Path, runtime: RuntimeName = "coreml") -> MeasuredPackage:
    """Any package. Raises PackageError where there is none, or where the runtime does not run one of its format."""
    if not path.is_dir() or path.suffix not in (MLPACKAGE, AIMODEL):
        raise PackageError(f"{path}: expected a .mlpackage or .aimodel folder")
    files = files_of(path)
    core_ai = is_core_ai(path)
    if core_ai and runtime == "coreml":
        raise PackageError(
            f"{path}: Core ML does not run a .aimodel; `--runtime coreai` times it in Core AI, `--runtime portable` in "
            "the portable runtime on this machine's processor"
        )
    if not core_ai and runtime == "coreai":
        raise PackageError(f"{path}: Core AI runs a .aimodel, which this is not")
    pattern = BYTECODE if core_ai else "Data/*/weights/*"
    weights = [file for file in files if file.relative_to(path).match(pattern)]
    return MeasuredPackage(
        name=path.name if core_ai else path.stem,
        sha256=tree_hash(path),
        weight_bytes=sum(file.stat().st_size for file in weights),
        package_bytes=sum(file.stat().st_size for file in files),
    )


Cell = tuple[str, str, str]
"""A network, by its name or as the user named it, an algorithm and a config in words."""


def packages_of_suite(
    results: Path, suite: str, runtime: RuntimeName = "coreml", cells: Collection[Cell] = ()
) -> list[tuple[Path, MeasuredPackage]]:
    """The suite's packages that `run` has left in a results folder, each network's dense one first.

    cells: of the suite's file. Those that another suite has measured into the folder, which `run` does not measure
    again, are the suite's, too: of the same weights and data as its own, or as they are where it has none of its own.
    Of each network and config the newest, and of several trials the first: they hold as many zeros. Core AI's are the
    `.aimodel`, everyone else's the `.mlpackage`. Needs neither data nor weights, so a folder that was made elsewhere
    will do. Raises BenchError where there are none.
    """
    format = "aimodel" if runtime == "coreai" else CORE_ML
    of_format = [record for record in read_records(results) if record.package_format == format]
    subjects = {record.subject_key for record in of_format if record.suite == suite}
    of_suite = [
        record.model_copy(update={"suite": suite})
        for record in of_format
        if record.suite == suite or (_cell(record) in cells and (record.subject_key in subjects or not subjects))
    ]
    trials = newest_trials(of_suite)
    records = [first for row in trials if (first := next((record for record in row if record.package), None))]
    if not records:
        how = "" if format == CORE_ML else f" --package-format {format}"
        raise BenchError(f"no .{format} of suite {suite} in {results}: `run --suite {suite}{how}` makes them")
    kept = [*(results / "artifacts").glob(f"*/*.{format}"), *(cache_folder() / "published").glob(f"*.{format}")]
    places = {tree_hash(path): path for path in kept if path.is_dir()}
    found, missing = [], []
    networks = list(dict.fromkeys(record.network.name for record in records))
    for record in sorted(records, key=lambda r: (networks.index(r.network.name), r.pruning.algorithm != "dense")):
        assert record.package is not None
        path = places.get(record.package.sha256)
        if path is None:
            missing.append(_name(record))
        else:
            found.append((path, _measured(record)))
    if missing:
        raise BenchError(
            f"{results / 'artifacts'} lacks the packages of {', '.join(missing)}: copy the whole results folder"
        )
    return found


def _cell(record: Record) -> Cell:
    return record.network.spec or record.network.name, record.pruning.algorithm, record.pruning.config


def _name(record: Record) -> str:
    return f"{record.network.name} {record.pruning.algorithm} {record.pruning.config}"


def _measured(record: Record) -> MeasuredPackage:
    assert record.package is not None
    return MeasuredPackage(
        name=_name(record),
        sha256=record.package.sha256,
        weight_bytes=record.package.weight_bytes,
        package_bytes=record.package.package_bytes,
        network=record.network,
        pruning=record.pruning,
        classes=record.data.classes,
        image_size=record.data.image_size,
    )
