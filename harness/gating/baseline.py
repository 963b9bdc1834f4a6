"""Baselines: what a gate compares with, as a small file fit for git or straight from a results folder.

A row keeps what the tests need: one bit an image and trial, and of latencies each round's medians and a few samples.
This module reads records, never packages, and imports neither torch nor coremltools.
"""

import base64
import binascii
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.gating.packed import packed
from coreml_prune_bench.gating.rows import AccuracyRow, Baseline, Failure, Images, LatencyRow, RoundSummary, Trial
from coreml_prune_bench.latency.statistics import TOTAL, energy_mj, wake_ns
from coreml_prune_bench.models.paths import expanded
from coreml_prune_bench.records.accuracy import Record, Runtime
from coreml_prune_bench.records.folder import on_standard_error, read_folder, refuse_nothing
from coreml_prune_bench.records.hits import Bits, read_scored, right
from coreml_prune_bench.records.latency import (
    IDLE_SECONDS,
    Device,
    LatencyRecord,
    Round,
    Thermal,
    latency_files,
)
from coreml_prune_bench.records.latest import left_out, newest_trials
from coreml_prune_bench.records.parity import off_share, read_parity_records
from coreml_prune_bench.records.schemas import read_as

DEFAULT_FILE = Path("results/baseline.json")

_SAMPLE = 200
"""Latency samples kept of a row, evenly spaced over all rounds: enough for a histogram."""

_Place = tuple[str, str, str, str]
"""A package's hash and compute units, and the name and chip of a device."""

_COOLEST_FIRST: tuple[Thermal, ...] = get_args(Thermal)


def load_baseline(source: str, *, whole: bool = False) -> Baseline:
    """The baseline that `source` names: a results folder, a baseline file, or a git revision that has one.

    A revision is REV, for results/baseline.json, or REV:FILE. whole: as `read_results` takes it.
    Raises BenchError of one line.
    """
    path = expanded(source)
    if path.is_dir():
        return read_results(path, whole=whole)
    if path.is_file():
        return read_baseline(path)
    revision, _, file = source.partition(":")
    if not file and path.suffix == ".json":
        raise BenchError(f"no baseline file {source}: `baseline save` makes one, or pytest's --coreml-gate-update")
    return parse_baseline(_from_git(source, revision, file or DEFAULT_FILE.as_posix()), source)


def read_baseline(path: Path) -> Baseline:
    """Read a baseline file of this schema or an older one. Raises BenchError for half a file or anything else."""
    return parse_baseline(path.read_bytes(), str(path))


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline file in one go. Failures are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, baseline.to_json())


def read_results(folder: Path, *, whole: bool = False) -> Baseline:
    """The newest state of every row of a results folder. Damaged records are named on standard error and left out.

    Raises BenchError where there is no record, where an older state would stand for a damaged one, and with `whole` for
    any damaged one: a row that a baseline lacks is new, and no gate holds it.
    """
    scored = read_folder(folder / "records", read_scored, lambda read: read[0], measured_by="run")
    latency = latency_files(folder)
    expected = f"no records in {folder}: expected a results folder with records/*.json or latency/*.json"
    refuse_nothing([scored, latency], expected, folder)
    for why in (*scored.damaged.values(), *latency.damaged.values()) if whole else ():
        raise BenchError(f"{why}; its row must not be left out here: measure it again")
    for path, other in (*scored.doubtful, *latency.doubtful):
        raise BenchError(f"{path} is damaged, and {other} may be an older state of its row: measure it again")
    scored.tell()
    latency.tell()
    for line in left_out(record for record, _ in scored.contents):
        on_standard_error(line)
    # Of several on one device, that of the most images.
    parity = sorted(read_parity_records(folder), key=lambda one: len(one.labels))
    off = {
        _place(one.sha256, one.runtimes[0], one.device): share
        for one in parity
        if (share := off_share(one)) is not None
    }
    return from_scored(scored.contents, latency.contents, off)


def from_records(records: Iterable[Record], latency: Sequence[LatencyRecord] = ()) -> Baseline:
    """The newest state of every row. Raises BenchError for latencies that are none."""
    return from_scored([(r, right(r.predictions) if r.predictions else None) for r in records], latency)


def from_scored(
    scored: Sequence[tuple[Record, Bits | None]],
    latency: Sequence[LatencyRecord],
    off: Mapping[_Place, float] = MappingProxyType({}),
) -> Baseline:
    """The same; `scored`: with what each got right, bool [images]. off: fractions."""
    correct = {record.key: bits for record, bits in scored if bits is not None}
    by_row = newest_trials(record for record, _ in scored)
    newest = list({_latency_identity(r): r for r in sorted(latency, key=lambda r: r.provenance.created)}.values())
    rows = [_accuracy_row(trials, correct) for trials in by_row if any(trial.key in correct for trial in trials)]
    return Baseline(
        measured=max([r.provenance.created for r, _ in scored] + [r.provenance.created for r in latency]),
        accuracy=tuple(rows),
        latency=tuple(_latency_row(r, off) for r in newest if r.status == "measured"),
        failures=(
            *(_accuracy_failure(trials[-1]) for trials in by_row if not any(t.key in correct for t in trials)),
            *(_latency_failure(r) for r in newest if r.status == "failed"),
        ),
    )


def _accuracy_row(all_trials: list[Record], correct: Mapping[str, Bits]) -> AccuracyRow:
    trials = [trial for trial in all_trials if trial.key in correct]
    first = trials[0]
    assert first.runtime
    if len({trial.data.skipped for trial in trials}) > 1:
        cell = f"{first.network.name}, {first.pruning.config}"
        raise BenchError(f"{cell}: its trials skipped different images, so they cannot be compared: measure them again")
    if len({len(correct[trial.key]) for trial in trials}) > 1:
        cell = f"{first.network.name}, {first.pruning.config}"
        raise BenchError(f"{cell}: its trials are of different numbers of images: measure them again")
    return AccuracyRow(
        model=first.network.name,
        algorithm=first.pruning.algorithm,
        config=first.config,
        suite=first.suite,
        images=Images(
            spec=first.data.spec,
            split=first.data.split,
            fingerprint=first.data.fingerprint,
            count=len(correct[first.key]),
            skipped=first.data.skipped,
            view=first.data.preprocessing.unusual_view,
        ),
        runtime=first.runtime,
        trials=tuple(
            Trial(
                correct=packed(correct[trial.key]),
                sha256=trial.package.sha256,
                weight_bytes=trial.package.weight_bytes,
                whole_model_sparsity=trial.package.whole_model_sparsity,
                package_bytes=trial.package.package_bytes,
            )
            for trial in trials
            if trial.package
        ),
        failed=tuple(_first_line(trial.reason) for trial in all_trials if trial.key not in correct),
    )


def _place(sha256: str, runtime: Runtime, device: Device) -> _Place:
    return sha256, runtime.compute_units, device.name, device.chip


def _latency_row(record: LatencyRecord, off: Mapping[_Place, float]) -> LatencyRow:
    durations = [_durations(record, one) for one in record.rounds]
    everything = np.concatenate(durations)
    evenly = np.linspace(0, len(everything) - 1, min(_SAMPLE, len(everything))).astype(int)
    states = [state for one in record.rounds for state in (one.before, one.after)]
    low_power = [state.low_power for state in states if state.low_power is not None]
    thermal = [state.thermal for state in states if state.thermal is not None]
    model, algorithm, config = _cell_of(record)
    return LatencyRow(
        model=model,
        algorithm=algorithm,
        config=config,
        sha256=record.package.sha256,
        device=record.device,
        runtime=record.runtime,
        protocol=record.protocol,
        low_power=any(low_power) if low_power else None,
        thermal=max(thermal, key=_COOLEST_FIRST.index, default=None),
        cold_load_ns=record.cold_load_ns,
        cached_load_ns=record.cached_load_ns,
        planned=record.placement.preferred if record.placement else None,
        rounds=tuple(
            RoundSummary(
                predictions=len(one.call_ns),
                call_median_ns=float(np.median(one.call_ns)),
                model_median_ns=None if one.model_ns is None else float(np.median(one.model_ns)),
            )
            for one in record.rounds
        ),
        sample=tuple(everything[evenly].tolist()),
        wake_ns=wake_ns(record, IDLE_SECONDS[-1]),
        energy_mj=energy[TOTAL].value if (energy := energy_mj(record.energy)) else None,
        predict_peak_bytes=record.memory.predict_peak_bytes if record.memory else None,
        off_share=off.get(_place(record.package.sha256, record.runtime, record.device)),
        image_size=record.package.image_size,
        classes=record.package.classes,
    )


def _durations(record: LatencyRecord, one: Round) -> NDArray[np.int64]:
    for samples in (one.call_ns, one.model_ns):
        if samples is not None and (not samples or min(samples) <= 0):
            raise BenchError(f"{record.file_name}: a round without samples, or one that took no time: measure it again")
    return np.array(one.call_ns if one.model_ns is None else one.model_ns, np.int64)


def _cell_of(record: LatencyRecord) -> tuple[str, str, str]:
    package = record.package
    if package.network is None or package.pruning is None:
        return package.name, "", ""
    return package.network.name, package.pruning.algorithm, package.pruning.config


def _latency_identity(record: LatencyRecord) -> tuple[object, ...]:
    """What a newer record replaces: the same row measured in the same way, whatever package or versions it has."""
    runtime, protocol, device, package = record.runtime, record.protocol, record.device, record.package
    return (
        *_cell_of(record), package.image_size, package.classes,
        runtime.compute_units, runtime.name, runtime.precision, device.name, device.chip,
        protocol.batch_size, protocol.concurrency, protocol.array_inputs,
    )  # fmt: skip


def _accuracy_failure(record: Record) -> Failure:
    return _failure("accuracy", (record.network.name, record.pruning.algorithm, record.config), record.reason)


def _latency_failure(record: LatencyRecord) -> Failure:
    return _failure("latency", _cell_of(record), record.reason)


def _failure(kind: Literal["accuracy", "latency"], cell: tuple[str, str, str], reason: str | None) -> Failure:
    model, algorithm, config = cell
    return Failure(kind=kind, model=model, algorithm=algorithm, config=config, reason=_first_line(reason))


def _first_line(reason: str | None) -> str:
    return (reason or "no reason was recorded").splitlines()[0]


def parse_baseline(text: bytes, source: str) -> Baseline:
    """The content of a baseline file. source: its name, for errors, as `read_baseline` raises them."""
    baseline = read_as(Baseline, "baseline", text, source, "; make one with `baseline save`")
    _check_bits(baseline.accuracy, source)
    return baseline


def _check_bits(rows: Iterable[AccuracyRow], source: str) -> None:
    for row in rows:
        for trial in row.trials:
            try:
                found = len(base64.b64decode(trial.correct, validate=True))
            except binascii.Error as error:
                raise BenchError(f"{source}: {row.model}, {row.config}: predictions are not base64: {error}") from error
            if found != (row.images.count + 7) // 8:
                raise BenchError(
                    f"{source}: {row.model}, {row.config}: {found} bytes of predictions for {row.images.count} images; "
                    "save it again"
                )


def _from_git(source: str, revision: str, file: str) -> bytes:
    command = ["git", "show", "--end-of-options", f"{revision}:{file}"]
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error).encode()
        first = next(iter(told.decode(errors="replace").splitlines()), "")
        raise BenchError(f"no baseline {source!r}: it is neither a file nor a folder, and git says: {first}") from error
