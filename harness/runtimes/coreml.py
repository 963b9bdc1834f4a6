"""Core ML itself, through coremltools, on a Mac.

What shaped this back end:

- A package is compiled once, to a path that stays the same: Core ML keeps what it specialized for the device under the
  full path of the compiled model, and a new path makes it do so again, which takes seconds to minutes.
- `CompiledMLModel` has no public way to what a prediction took, which `MLModel` has (but that compiles anew to a
  temporary path each time); both ask the same native proxy, and so does this module.
- It answers as the portable runtime's `Model` does, so that what evaluates the one evaluates the other.

It must import coremltools only when a function is called.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from coreml_prune_bench.core.cache_folder import Use, cache_folder, use_new
from coreml_prune_bench.core.errors import BenchError, PackageError
from coreml_prune_bench.core.files import tree_hash, write_atomically
from coreml_prune_bench.core.keys import key_of
from coreml_prune_bench.mlprogram.program import Operation, Program
from coreml_prune_bench.mlprogram.reader import read
from coreml_prune_bench.mlprogram.values import Immediate, Reference
from coreml_prune_bench.models.quiet import quiet_coremltools

if TYPE_CHECKING:
    from coreml_prune_bench.latency.placement import ComputePlan

NATIVE = "coremltools.libcoremlpython"
"""The module that coremltools predicts through; it swallows the error if this does not load."""

CACHE = "com.apple.e5rt.e5bundlecache"
_NOTES = "notes.json"


class CoreMLMissingError(BenchError):
    """Core ML is not here."""


def is_available() -> bool:
    """Whether Core ML is here. The portable runtime in its place (`portable.install`) does not count."""
    quiet_coremltools()
    from coremltools.models import model, utils

    from coreml_prune_bench.runtimes.portable import native

    return bool(utils._is_macos() and model._MLModelProxy is not None and not native.is_installed())


def require_available() -> None:
    """Raises CoreMLMissingError, which says what there is instead."""
    if not is_available():
        raise CoreMLMissingError(missing())


def missing() -> str:
    """What a user is told where Core ML is not."""
    return (
        f"Core ML is not on this machine ({platform.system()}): it predicts on a Mac only; `--runtime portable` takes "
        "the portable runtime on this machine's processor instead, whose times say nothing of Core ML"
    )


def system_cache() -> Path:
    """Where macOS keeps what it specialized for this executable, under the full path of each compiled model."""
    home = os.environ.get("CFFIXED_USER_HOME") or os.environ.get("HOME") or Path.home()
    return Path(home) / "Library/Caches" / Path(sys.executable).name / CACHE


def cache_bytes() -> int:
    """The size of that; 0 if there is none."""
    return sum(file.stat().st_size for file in system_cache().rglob("*") if file.is_file())


def said(error: BaseException) -> str:
    """What an error of the native module says, in one line: of the text of a userInfo dictionary, its description."""
    found = re.search(r'NSLocalizedDescription = "?(.*?)"?;\s*(?:NS|\}|$)', str(error), re.DOTALL)
    return " ".join((found[1].replace('\\"', '"') if found else str(error)).split())


@dataclass(frozen=True)
class Compiled:
    """A compiled model at its lasting path. compile_ns: what compiling took, now or in the process that did it.

    use: keeps it there.
    """

    path: Path
    compile_ns: int
    use: Use | None

    def cold_load_ns(self, compute_units: str) -> int | None:
        """What the first load for these compute units took; None if there was none yet."""
        found: dict[str, int] = _notes(self.path)["cold_load_ns"]
        return found.get(compute_units)

    def note_cold_load(self, compute_units: str, nanoseconds: int) -> None:
        """Keep what the first load took: it can be measured once only."""
        with _lock(self.path.parent):
            notes = _notes(self.path)
            notes["cold_load_ns"][compute_units] = nanoseconds
            write_atomically(self.path.parent / _NOTES, json.dumps(notes))


def compile_package(package: Path, sha256: str) -> Compiled:
    """The package, compiled for this build of the operating system, from the cache folder or newly made.

    An update of the operating system makes it specialize anew, hence its build in the path.
    Raises PackageError where Core ML does not compile it.
    """
    from coremltools.models.utils import compile_model

    build = key_of({"os": platform.version()})[:8]
    folder = cache_folder() / "compiled" / f"{sha256[:16]}-{build}"
    path = folder / "model.mlmodelc"  # by content alone: a copy of the package under another name is the same model
    used = use_new(folder)
    with _lock(folder):
        if not (folder / _NOTES).is_file():
            shutil.rmtree(
                path, ignore_errors=True
            )  # of a run that was killed: the notes, written last, say it is whole
            for old in folder.parent.glob(f"{sha256[:16]}-*"):
                if old.is_dir() and old != folder:
                    shutil.rmtree(old, ignore_errors=True)  # of another build of the system, which never loads it again
            started = time.perf_counter_ns()
            try:
                compile_model(str(package), str(path))
            except RuntimeError as error:
                raise PackageError(f"{package}: Core ML does not compile it: {said(error)}") from error
            taken = time.perf_counter_ns() - started
            write_atomically(folder / _NOTES, json.dumps({"compile_ns": taken, "cold_load_ns": {}}))
    return Compiled(path, _notes(path)["compile_ns"], used)


def _notes(compiled: Path) -> dict[str, Any]:
    notes: dict[str, Any] = json.loads((compiled.parent / _NOTES).read_text())
    return notes


def _lock(folder: Path) -> FileLock:
    return FileLock(folder.with_suffix(".lock"))


class Model:
    """A package that Core ML predicts with. Inputs, outputs and results are those of the portable runtime's `Model`.

    compute_units: "all", "cpu_and_ne", "cpu_and_gpu" or "cpu_only". function: None for the default one.
    """

    def __init__(self, package: str | Path, *, compute_units: str = "all", function: str | None = None) -> None:
        quiet_coremltools()
        import coremltools as ct

        self.package = Path(package)
        program = read(self.package, function)
        self.function = program.function
        self.inputs, self.outputs, self.states = program.inputs, program.outputs, program.states
        self.classes = _classes(program)
        self.compiled = compile_package(self.package, tree_hash(self.package))
        units = ct.ComputeUnit[compute_units.upper()]
        try:
            self._model = ct.models.CompiledMLModel(str(self.compiled.path), units, function)
        except RuntimeError as error:
            raise PackageError(f"{self.package}: Core ML does not load it: {said(error)}") from error
        # Whatever loads it first, for whatever reason: afterwards it is warm.
        if self.compiled.cold_load_ns(compute_units) is None:
            self.compiled.note_cold_load(compute_units, self.load_ns)

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.outputs)

    @property
    def load_ns(self) -> int:
        """What Core ML took to load the model, without Python around it."""
        return int(self._model._proxy.get_load_duration_in_nano_seconds())

    @property
    def last_predict_ns(self) -> int:
        """What Core ML took for the last prediction, without the conversion of its inputs and outputs."""
        return int(self._model._proxy.get_last_predict_duration_in_nano_seconds())

    def predict(self, inputs: dict[str, Any] | list[dict[str, Any]], state: Any = None) -> Any:
        """As coremltools predicts: one sample, or a list of them in one batch."""
        return self._model.predict(inputs, state)

    def make_state(self) -> Any:
        """The state before the first prediction of a stateful package."""
        return self._model.make_state()

    def predict_batch(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """N samples at once, stacked: uint8 [N, H, W, C] for an image, [N, ...] for an array declared as [1, ...].

        Results are stacked in the same way: labels as [N], probabilities as [N, classes] in the order of `classes`.
        Raises PackageError where Core ML refuses.
        """
        columns = {name: self._split(name, batch) for name, batch in inputs.items()}
        samples = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        try:
            results = self._model.predict(samples)
        except RuntimeError as error:
            raise PackageError(f"{self.package}: Core ML cannot predict: {said(error)}") from error
        return {
            feature.name: self._stacked(feature.kind, [r[feature.name] for r in results]) for feature in self.outputs
        }

    def _split(self, name: str, batch: np.ndarray) -> Sequence[Any]:
        import PIL.Image

        feature = next(feature for feature in self.inputs if feature.name == name)
        if feature.kind == "image":
            if feature.color_space == "GRAYSCALE_FLOAT16":
                batch = batch.astype(np.float32)  # mode F, which coremltools rounds
            return [PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in batch]
        leads_with_one = len(feature.shape) == batch.ndim and feature.default_shape[:1] == (1,)
        return [sample[np.newaxis] if leads_with_one else sample for sample in batch]

    def _stacked(self, kind: str, values: list[Any]) -> np.ndarray:
        if kind == "probabilities":
            assert self.classes is not None
            return np.array([[value[name] for name in self.classes] for value in values], np.float32)
        if kind == "label":
            return np.array(values)
        arrays = [np.asarray(value) for value in values]
        return np.concatenate(arrays) if kind == "array" and arrays[0].shape[:1] == (1,) else np.stack(arrays)


def compute_plan(compiled: Path, compute_units: str) -> ComputePlan:
    """Where Core ML plans to run each operation. Raises RuntimeError before macOS 14.4, PackageError
    for what is no compiled model."""
    import coremltools as ct
    from coremltools.models.compute_plan import MLComputePlan

    if compiled.suffix != ".mlmodelc" or not compiled.is_dir():
        # Core ML ends the process then: https://github.com/apple/coremltools/issues/2757
        raise PackageError(f"{compiled}: no compiled model, which a compute plan is made of")
    plan: ComputePlan = MLComputePlan.load_from_path(str(compiled), ct.ComputeUnit[compute_units.upper()])
    return plan


def _classes(program: Program) -> tuple[str | int, ...] | None:
    """A classifier's classes, in the order of its scores."""
    classify = next((operation for operation in program.operations if operation.type == "classify"), None)
    if classify is None:
        return None
    argument = classify.inputs["classes"][0]
    constant = _constant(program, argument) if isinstance(argument, Reference) else argument
    if not isinstance(constant, Immediate):
        raise PackageError(f"{program.package}: its classes are not in the program")
    return tuple(np.asarray(member).item() for member in constant.value)


def _constant(program: Program, reference: Reference) -> Any:
    def makes_it(operation: Operation) -> bool:
        return any(output.name == reference.name for output in operation.outputs)

    return next(operation for operation in program.operations if makes_it(operation)).attributes["val"]
