"""A loaded package: checks what it is fed, runs it in ONNX Runtime on the CPU, returns what Core ML would.

It must know no operation, and must refuse an input rather than bend it: Core ML does not resize an image either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coreml_prune_bench.aimodel.programs import read_program
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.program import Feature, Program
from coreml_prune_bench.models.processors import cores
from coreml_prune_bench.runtimes.portable import cache
from coreml_prune_bench.runtimes.portable.engine import ONNX_RUNTIME_ERRORS, is_full, leave_pool, renew_pool, start
from coreml_prune_bench.runtimes.portable.interface import INTERFACE_FILE, MODEL_FILE, Interface
from coreml_prune_bench.runtimes.portable.memory import most_bytes, most_bytes_made
from coreml_prune_bench.runtimes.portable.running import Feeds, Results, Running
from coreml_prune_bench.runtimes.portable.sharing import Sharing
from coreml_prune_bench.runtimes.portable.values import batch, computed, leads_with_one, sample, sample_shape

if TYPE_CHECKING:
    from PIL.Image import Image

    from coreml_prune_bench.core.cache_folder import Use
    from coreml_prune_bench.runtimes.portable.graph import Precision
    from coreml_prune_bench.runtimes.portable.translate import Shapes, Translation

_MOST_SESSIONS = 8
"""A package of flexible shapes has a session for each shape that it was given lately."""

State = dict[str, np.ndarray]
"""Float32 (or integers) by state name, of the declared shapes. `predict` replaces the arrays."""


@dataclass(eq=False)
class _Loaded:
    """shapes: those that it was translated for (None: the default ones); model_bytes: of it and its weights."""

    interface: Interface
    session: Running
    shapes: Shapes | None
    model_bytes: int
    use: Use | None


class Model:
    """A package that runs. `predict` takes one sample as Core ML does, `predict_batch` N of them.

    An image is a PIL image or uint8 [H, W, C], channels in the order R, G, B whatever the model's own order is
    (Float16 gray: a PIL image of mode F, or Float16). An array has a declared shape. Results are Float32 (or integers)
    of the declared shapes, images for image outputs, and a classifier's label and dictionary {label: probability}.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        function: str | None = None,
        precision: Precision = "float32",
        threads: int | None = None,
        many: bool = False,
        cached: bool = True,
    ) -> None:
        self.package = Path(path)
        self.precision = precision
        self._function = function
        self._threads = threads or cores()
        self._many = many
        self._sharing = Sharing(self._threads)
        self._content = cache.content(self.package) if cached and cache.is_on() else None
        default = self._open_default()
        described = default.interface if default else self.program
        self.inputs, self.outputs, self.states = described.inputs, described.outputs, described.states
        self.any_batch = default is not None and default.interface.any_batch
        self.classes = default.interface.classifier.classes if default and default.interface.classifier else None
        self._results = described.results
        self._model_bytes = default.model_bytes if default else self.program.weights.package_bytes()
        self._features = {feature.name: feature for feature in self.inputs}
        self._sessions = {tuple(f.default_shape for f in self.inputs): default} if default else {}

    @cached_property
    def program(self) -> Program:
        """The function as the package has it. Read when asked for: what comes out of the cache does without."""
        program = read_program(self.package, self._function)
        if self._content is not None and cache.content(self.package) != self._content:
            raise PackageError(f"{self.package}: changed while it was in use; load it again")
        return program

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(self._features)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self._results

    def make_state(self) -> State:
        """The state before the first prediction: zeros, as Core ML's. PackageError where it is too large for that."""
        self._check_made(self.states, "its state")
        return {s.name: np.zeros(s.default_shape, computed(np.dtype(s.dtype))) for s in self.states}

    def predict(self, inputs: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """One sample: a PIL image or array for each input, of a shape that is declared.

        A stateful package needs a `state` from `make_state`, which is updated. Raises PackageError where a name, shape,
        element type or image size is not what the model declares.
        """
        self._check_names(inputs)
        self._check_state(state)
        self._check_made([feature for feature in self.inputs if feature.name not in inputs], "its default inputs")
        given = {name: sample(self.package, one, inputs.get(name)) for name, one in self._features.items()}
        feeds = {name: a[np.newaxis] if self._features[name].kind == "image" else a for name, a in given.items()}
        loaded = self._load({name: tuple(array.shape) for name, array in given.items()})
        return self._one(self._run(loaded, feeds, state), loaded)

    def predict_batch(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """N samples at once, stacked: uint8 [N, H, W, C] for an image, [N, ...] for a declared [1, ...] or [...].

        Results are stacked in the same way: images as uint8 [N, H, W, C], labels as [N], probabilities as [N, classes]
        in the order of `classes`. Raises PackageError as `predict` does.
        """
        if self.states:
            raise PackageError(f"{self.package}: is stateful, which a batch is not; use predict with a state")
        self._check_names(inputs)
        batches = {name: batch(self.package, self._features[name], given) for name, given in inputs.items()}
        sizes = {name: len(samples) for name, samples in batches.items()}
        if len(set(sizes.values())) != 1:
            raise PackageError(f"{self.package}: expected the same number of samples, got {sizes}")
        samples = next(iter(sizes.values()))
        for name, feature in self._features.items():
            if name not in inputs:  # an optional one
                one = sample(self.package, feature, None)
                batches[name] = np.stack([one[0] if leads_with_one(feature) else one] * samples)
        shapes = {name: sample_shape(feature, batches[name]) for name, feature in self._features.items()}
        loaded = self._load(shapes)
        if loaded.interface.any_batch:
            return self._stacked(self._run_parts(loaded, batches, samples), loaded)
        return self._one_by_one(loaded, batches, samples)

    def to_onnx(self, path: str | Path) -> None:
        """Write the translated model, with its weights decompressed and in it, for its declared (default) shapes."""
        import onnx

        from coreml_prune_bench.runtimes.portable.model_file import self_contained

        onnx.save_model(self_contained(self._translate(None)), str(path))

    # --- loading

    def _load(self, shapes: Shapes) -> _Loaded:
        """The session for inputs of these shapes."""
        key = tuple(shapes.values())
        if key not in self._sessions:
            loaded = self._open(shapes)
            while len(self._sessions) >= _MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[key] = loaded
        return self._sessions[key]

    def _open_default(self) -> _Loaded | None:
        """For the declared shapes. None where they are not the only ones and the program does not fit them.

        coremltools declares the smallest ones that a range allows, whatever the program indexes: others can fit.
        """
        try:
            return self._open(None)
        except PackageError:
            if "program" not in vars(self):  # it cannot be read at all, and would not be the second time
                raise
            program = self.program
            if not any(f.flexible for f in program.inputs) or any(f.kind == "label" for f in program.outputs):
                raise
            from coreml_prune_bench.runtimes.portable.translate import check_known

            check_known(program)
            return None

    def _open(self, shapes: Shapes | None) -> _Loaded:
        """Out of the cache, or translated. None: the default shapes, which stand in the package or in the cache."""
        key = cache.key(self._content, self._function, self.precision, shapes) if self._content else None
        if key is not None and (entry := cache.find(key)):
            # It can be evicted meanwhile; what then is wrong with the package itself, translating will tell.
            with suppress(PackageError, OSError, ValueError, LookupError, TypeError):
                return self._start(entry, shapes)
        with cache.made(key, lambda folder: self._write(shapes, folder)) as folder:
            return self._start(folder, shapes)

    def _write(self, shapes: Shapes | None, folder: Path) -> None:
        from coreml_prune_bench.runtimes.portable.model_file import write

        write(self._translate(shapes), folder)

    def _translate(self, shapes: Shapes | None) -> Translation:
        # Only here, since importing onnx takes longer than finding a translation in the cache.
        from coreml_prune_bench.runtimes.portable.translate import translate

        default = {feature.name: feature.default_shape for feature in self.program.inputs}
        return translate(self.program, default if shapes is None else shapes, self.precision)

    def _start(self, folder: Path, shapes: Shapes | None) -> _Loaded:
        used = cache.in_use(folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        pool_bytes = most_bytes(model=size)
        interface = Interface.from_json((folder / INTERFACE_FILE).read_bytes())
        # Threads that each predict samples of their own need not wait for each other, which those of one run do.
        side_by_side = self._threads if self._many and interface.any_batch else 1
        threads = 1 if self._many and interface.any_batch else self._threads
        with self._onnx_runtime("load"):
            try:
                session = start(folder / MODEL_FILE, threads=threads, most_bytes=pool_bytes)
            except ONNX_RUNTIME_ERRORS as error:
                if not (is_full(error) and renew_pool(pool_bytes)):  # full of what others have left
                    raise
                session = start(folder / MODEL_FILE, threads=threads, most_bytes=pool_bytes)
        running = Running(session, side_by_side=side_by_side, time_varies=interface.time_varies)
        return _Loaded(interface, running, shapes, size, used)

    # --- running

    def _run(self, loaded: _Loaded, feeds: Feeds, state: State | None) -> dict[str, np.ndarray]:
        """ONNX Runtime's results by their MIL names."""
        names = {**loaded.interface.output_names, **loaded.interface.state_names}
        (results,) = self._bounded(loaded, list(names.values()), [{**feeds, **(state or {})}], state or {})
        values = dict(zip(names, results, strict=True))
        if state is not None:
            state.update({name: values.pop(name) for name in loaded.interface.state_names})
        return values

    def _run_parts(self, loaded: _Loaded, batches: Feeds, samples: int) -> dict[str, np.ndarray]:
        """The same of a batch, in one run or shared out."""
        names = loaded.interface.output_names
        if not self._many:
            return self._run(loaded, batches, None)
        with self._sharing.parts(samples) as parts:
            feeds = [{name: one[part] for name, one in batches.items()} for part in parts]
            results = self._bounded(loaded, list(names.values()), feeds, {})
        return {name: np.concatenate(arrays) for name, *arrays in zip(names, *results, strict=True)}

    def _bounded(self, loaded: _Loaded, names: list[str], parts: Sequence[Feeds], state: State) -> list[Results]:
        """What the session makes of each part. Raises PackageError where its values take more memory than they may.

        An input that the program ignores is no input of its graph.
        """
        states = sum(array.nbytes for array in state.values())
        inputs = sum(array.nbytes for part in parts for array in part.values()) - states
        pool_bytes = most_bytes(model=loaded.model_bytes, inputs=inputs, states=states)
        taken = loaded.session.inputs
        fed = [{name: part[name] if taken[name] else part[name].reshape(()) for name in taken} for part in parts]
        with self._onnx_runtime("run"):
            try:
                return loaded.session.run_all(names, fed)
            except ONNX_RUNTIME_ERRORS as error:
                if not is_full(error):
                    raise
            # Perhaps of what others have left there, or it was meant for smaller inputs: once more, in a new one.
            if renew_pool(pool_bytes):
                loaded.session = self._open(loaded.shapes).session
                try:
                    return loaded.session.run_all(names, fed)
                except ONNX_RUNTIME_ERRORS as error:
                    if not is_full(error):
                        raise
        leave_pool()
        raise PackageError(
            f"{self.package}: a prediction's values take more than {pool_bytes / (1 << 30):,.2f} GiB, the most for "
            "a package of this size and inputs of this size"
        )

    @contextmanager
    def _onnx_runtime(self, doing: str) -> Iterator[None]:
        """Inside, a refusal of ONNX Runtime becomes an error that names the package."""
        try:
            yield
        except ONNX_RUNTIME_ERRORS as error:
            why = " ".join(str(error).split())
            raise PackageError(f"{self.package}: ONNX Runtime cannot {doing} the program: {why}") from error

    def _one_by_one(self, loaded: _Loaded, batches: Mapping[str, np.ndarray], samples: int) -> dict[str, np.ndarray]:
        leads = {name: f.kind == "image" or leads_with_one(f) for name, f in self._features.items()}
        results = [
            self._run(loaded, {name: b[i : i + 1] if leads[name] else b[i] for name, b in batches.items()}, None)
            for i in range(samples)
        ]
        return self._stacked(
            {name: self._join(name, [result[name] for result in results]) for name in results[0]}, loaded
        )

    def _join(self, name: str, results: list[np.ndarray]) -> np.ndarray:
        """Samples' results as one batch, along the leading 1 if they have one."""
        if len(shapes := {result.shape for result in results}) > 1:
            several = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
            raise PackageError(f"{self.package}: output {name!r} is {several} for different samples; use predict")
        return np.concatenate(results) if results[0].shape[:1] == (1,) else np.stack(results)

    # --- what a caller gets

    def _one(self, values: Mapping[str, np.ndarray], loaded: _Loaded) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for name, value in values.items():
            classifier = loaded.interface.classifier
            if classifier and name == classifier.probabilities:
                scores = value.reshape(-1)
                results[classifier.label] = classifier.classes[int(scores.argmax())]
                results[name] = dict(zip(classifier.classes, map(float, scores), strict=True))
            elif (image := self._image_output(name)) is not None:
                results[name] = _to_image(self._pixels(value, image)[0])
            else:
                results[name] = value
        return results

    def _stacked(self, values: Mapping[str, np.ndarray], loaded: _Loaded) -> dict[str, np.ndarray]:
        results: dict[str, np.ndarray] = {}
        for name, value in values.items():
            classifier = loaded.interface.classifier
            if classifier and name == classifier.probabilities:
                results[classifier.label] = np.array(classifier.classes)[value.argmax(axis=1)]
            image = self._image_output(name)
            results[name] = value if image is None else self._pixels(value, image)
        return results

    def _pixels(self, value: np.ndarray, image: Feature) -> np.ndarray:
        """Raises PackageError where the program returns something else than the image that the model declares."""
        channels = image.shape[2]
        if value.ndim != 4 or value.shape[1] != channels:
            expected = f"[1, {channels}, height, width] for an image of {image.color_space}"
            raise PackageError(f"{self.package}: output {image.name!r} is {list(value.shape)}, expected {expected}")
        return _to_pixels(value, image)

    def _image_output(self, name: str) -> Feature | None:
        return next((f for f in self.outputs if f.name == name and f.kind == "image"), None)

    # --- what a caller gives

    def _check_names(self, inputs: Mapping[str, Any]) -> None:
        needed = {name for name, feature in self._features.items() if feature.default is None}
        if not needed <= set(inputs) <= set(self._features):
            expected, got = sorted(self.input_names), sorted(inputs)
            raise PackageError(f"{self.package}: expected inputs {expected}, got {got}")

    def _check_state(self, state: State | None) -> None:
        expected = {s.name: s.default_shape for s in self.program.states}
        got = {name: tuple(np.shape(value)) for name, value in (state or {}).items()}
        if expected != got:
            raise PackageError(f"{self.package}: expected the state {expected} (see make_state), got {got}")

    def _check_made(self, features: Sequence[Feature], what: str) -> None:
        """What a package lets us make must not be out of proportion to it."""
        made = sum(math.prod(feature.default_shape) * 4 for feature in features)
        most = most_bytes_made(model=self._model_bytes)
        if made > most:
            sizes = f"{made / (1 << 20):,.0f} MiB, more than the {most / (1 << 20):,.0f} MiB"
            raise PackageError(f"{self.package}: {what} would take {sizes} that are made for a package of this size")


def _to_pixels(value: np.ndarray, image: Feature) -> np.ndarray:
    """From the program's [N, C, H, W] to uint8 [N, H, W, C] in the order R, G, B (Float16 gray: Float32)."""
    pixels = np.moveaxis(value, 1, -1)
    if image.color_space == "BGR":
        pixels = pixels[..., ::-1]
    return pixels if image.dtype == "float16" else np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _to_image(pixels: np.ndarray) -> Image:
    """[H, W, C] as PIL shows it: gray has no channel dimension."""
    from PIL.Image import fromarray  # few models return images

    return fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
