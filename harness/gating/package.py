"""One package against a baseline, evaluated here and now: what the pytest fixture does."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from coreml_prune_bench.accuracy.class_labels import read_class_map
from coreml_prune_bench.core.cache_folder import cache_folder
from coreml_prune_bench.core.errors import BenchError, did_you_mean
from coreml_prune_bench.core.keys import key_of
from coreml_prune_bench.data.halves import open_data_or_part
from coreml_prune_bench.gating.baseline import load_baseline, read_baseline, write_baseline
from coreml_prune_bench.gating.checks import Report
from coreml_prune_bench.gating.compare import measure
from coreml_prune_bench.gating.limits import read_rules
from coreml_prune_bench.gating.pairs import name_of
from coreml_prune_bench.gating.rows import AccuracyRow, Baseline
from coreml_prune_bench.gating.verdicts import gate
from coreml_prune_bench.records.predictions import Precision


def gate_package(
    package: Path,
    *,
    data: str,
    baseline: str,
    row: str,
    rules: Path | None = None,
    precision: Precision = "float32",
    class_map: Path | None = None,
    skip_bad_images: bool = False,
) -> Report:
    """Evaluate a package on the val split of `data` and gate it: a report of one row.

    baseline: another package, or what `load_baseline` takes, in which `row` names the row to compare with. Raises
    BenchError where there is none of that name, and what `measure` raises. class_map: a file as of `--class-map`.
    """
    book = read_rules(rules) if rules else None
    classes = read_class_map(class_map) if class_map else None
    older = Path(baseline) if baseline.rstrip("/").endswith(".mlpackage") else None
    known = None if older else _named(load_baseline(baseline), row, baseline)
    opened = open_data_or_part(data)
    packages = [package, older] if older else [package]
    measured = measure(packages, opened, precision=precision, class_map=classes, skip_bad_images=skip_bad_images)
    rows = [one.row(row, opened, precision) for one in measured]
    old = rows[1] if known is None else known
    new = rows[0].model_copy(update={"model": old.model, "algorithm": old.algorithm, "config": old.config})
    return gate(Baseline(measured="", accuracy=(old,)), Baseline(measured="", accuracy=(new,)), book)


def update_baseline(
    package: Path,
    *,
    data: str,
    baseline: Path,
    row: str,
    precision: Precision = "float32",
    class_map: Path | None = None,
    skip_bad_images: bool = False,
) -> None:
    """Evaluate a package and write it into a baseline file as `row`, in place of a row of that name. Makes the file."""
    if baseline.exists():
        read_baseline(baseline)  # what it is not is told before the images are evaluated
    classes = read_class_map(class_map) if class_map else None
    opened = open_data_or_part(data)
    (measured,) = measure([package], opened, precision=precision, class_map=classes, skip_bad_images=skip_bad_images)
    new = measured.row(row, opened, precision)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    baseline.parent.mkdir(parents=True, exist_ok=True)
    with _alone(baseline):  # pytest's workers write one file
        old = read_baseline(baseline) if baseline.exists() else Baseline(measured="")
        kept = [one for one in old.accuracy if name_of(one) != row]
        write_baseline(baseline, old.model_copy(update={"accuracy": (*kept, new), "measured": now}))


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Inside, no other process of this user writes the file. The lock lies elsewhere: the file's folder is in git."""
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / key_of({"file": str(file.resolve())})[:16]):
        yield


def _named(baseline: Baseline, row: str, source: str) -> AccuracyRow:
    found = [one for one in baseline.accuracy if name_of(one) == row]
    if found:
        return found[0]
    hint = did_you_mean(row, [name_of(one) for one in baseline.accuracy], however_far=True)
    raise BenchError(f"{source} has no row {row!r}{hint} (pytest --coreml-gate-update adds it)")
