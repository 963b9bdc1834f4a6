"""A loaded package: checks what it is fed, runs it in ONNX Runtime on the CPU, returns what Core ML would.

It must know no operation, and must refuse an input rather than bend it: Core ML does not resize an image either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from PIL import Image

from harness.errors import PackageError
from harness.runtimes.portable.graph import Precision
from harness.runtimes.portable.reader import Feature, read
from harness.runtimes.portable.translate import Translation, translate

_PIL_MODES = {"RGB": "RGB", "BGR": "RGB", "GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}
_ERRORS_ONLY = 3
_MOST_SESSIONS = 8
"""A package of flexible shapes has a session for each shape that it was given lately."""

State = dict[str, np.ndarray]
"""Float32 (or integers) by state name, of the declared shapes. `predict` replaces the arrays."""


@dataclass(frozen=True)
class _Loaded:
    translation: Translation
    session: Any


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
    ) -> None:
        self.program = read(path, function)
        self.precision = precision
        self._threads = threads
        self._features = {feature.name: feature for feature in self.program.inputs}
        self._sessions: dict[tuple[tuple[int, ...], ...], _Loaded] = {}
        default = self._load({feature.name: feature.default_shape for feature in self.program.inputs})
        self.any_batch = default.translation.any_batch
        self.classes = default.translation.classifier.classes if default.translation.classifier else None

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(self._features)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.program.results

    def make_state(self) -> State:
        """The state before the first prediction: zeros, as Core ML's."""
        return {s.name: np.zeros(s.default_shape, _computed(np.dtype(s.dtype))) for s in self.program.states}

    def predict(self, inputs: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """One sample: a PIL image or array for each input, of a shape that is declared.

        A stateful package needs a `state` from `make_state`, which is updated. Raises PackageError where a name, shape,
        element type or image size is not what the model declares.
        """
        self._check_names(inputs)
        self._check_state(state)
        given = {name: self._sample(feature, inputs.get(name)) for name, feature in self._features.items()}
        feeds = {name: a[np.newaxis] if self._features[name].kind == "image" else a for name, a in given.items()}
        loaded = self._load({name: tuple(array.shape) for name, array in given.items()})
        return self._one(self._run(loaded, feeds, state), loaded)

    def predict_batch(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """N samples at once, stacked: uint8 [N, H, W, C] for an image, [N, ...] for a declared [1, ...] or [...].

        Results are stacked in the same way: images as uint8 [N, H, W, C], labels as [N], probabilities as [N, classes]
        in the order of `classes`. Raises PackageError as `predict` does.
        """
        if self.program.states:
            raise PackageError(f"{self.program.package}: is stateful, which a batch is not; use predict with a state")
        self._check_names(inputs)
        batches = {name: self._batch(feature, inputs.get(name)) for name, feature in self._features.items()}
        sizes = {name: len(batch) for name, batch in batches.items()}
        if len(set(sizes.values())) != 1:
            raise PackageError(f"{self.program.package}: expected the same number of samples, got {sizes}")
        loaded = self._load({name: self._sample_shape(name, batch) for name, batch in batches.items()})
        if loaded.translation.any_batch:
            return self._many(self._run(loaded, batches, None), loaded)
        return self._one_by_one(loaded, batches, next(iter(sizes.values())))

    def to_onnx(self, path: str | Path) -> None:
        """Write the translated model, with its weights decompressed, for its declared (default) shapes."""
        shapes = {feature.name: feature.default_shape for feature in self.program.inputs}
        onnx.save_model(translate(self.program, shapes, self.precision).model, str(path))

    # --- running

    def _load(self, shapes: Mapping[str, tuple[int, ...]]) -> _Loaded:
        key = tuple(shapes.values())
        if key not in self._sessions:
            translation = translate(self.program, shapes, self.precision)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = _ERRORS_ONLY
            if self._threads is not None:
                options.intra_op_num_threads = self._threads
            options.inter_op_num_threads = 1
            session = onnxruntime.InferenceSession(
                translation.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            while len(self._sessions) >= _MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[key] = _Loaded(translation, session)
        return self._sessions[key]

    def _run(self, loaded: _Loaded, feeds: Mapping[str, np.ndarray], state: State | None) -> dict[str, np.ndarray]:
        """ONNX Runtime's results by their MIL names. An input that the program ignores is no input of its graph."""
        names = {**loaded.translation.outputs, **loaded.translation.states}
        fed = {**feeds, **(state or {})}
        taken = {input_.name: tuple(input_.shape) for input_ in loaded.session.get_inputs()}
        scalars = {name: fed[name].reshape(()) if not shape else fed[name] for name, shape in taken.items()}
        values = dict(zip(names, loaded.session.run(list(names.values()), scalars), strict=True))
        if state is not None:
            state.update({name: values.pop(name) for name in loaded.translation.states})
        return values

    def _one_by_one(self, loaded: _Loaded, batches: Mapping[str, np.ndarray], samples: int) -> dict[str, np.ndarray]:
        leads = {name: f.kind == "image" or _leads_with_one(f) for name, f in self._features.items()}
        results = [
            self._run(loaded, {name: b[i : i + 1] if leads[name] else b[i] for name, b in batches.items()}, None)
            for i in range(samples)
        ]
        return self._many({name: _join([result[name] for result in results]) for name in results[0]}, loaded)

    # --- what a caller gets

    def _one(self, values: Mapping[str, np.ndarray], loaded: _Loaded) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for name, value in values.items():
            classifier = loaded.translation.classifier
            if classifier and name == classifier.probabilities:
                scores = value.reshape(-1)
                results[classifier.label] = classifier.classes[int(scores.argmax())]
                results[name] = dict(zip(classifier.classes, map(float, scores), strict=True))
            elif (image := self._image_output(name)) is not None:
                results[name] = _to_image(_to_pixels(value, image)[0])
            else:
                results[name] = value
        return results

    def _many(self, values: Mapping[str, np.ndarray], loaded: _Loaded) -> dict[str, np.ndarray]:
        results: dict[str, np.ndarray] = {}
        for name, value in values.items():
            classifier = loaded.translation.classifier
            if classifier and name == classifier.probabilities:
                results[classifier.label] = np.array(classifier.classes)[value.argmax(axis=1)]
            image = self._image_output(name)
            results[name] = value if image is None else _to_pixels(value, image)
        return results

    def _image_output(self, name: str) -> Feature | None:
        return next((f for f in self.program.outputs if f.name == name and f.kind == "image"), None)

    # --- what a caller gives

    def _check_names(self, inputs: Mapping[str, Any]) -> None:
        needed = {name for name, feature in self._features.items() if feature.default is None}
        if not needed <= set(inputs) <= set(self._features):
            expected, got = sorted(self.input_names), sorted(inputs)
            raise PackageError(f"{self.program.package}: expected inputs {expected}, got {got}")

    def _check_state(self, state: State | None) -> None:
        expected = {s.name: s.default_shape for s in self.program.states}
        got = {name: tuple(np.shape(value)) for name, value in (state or {}).items()}
        if expected != got:
            raise PackageError(f"{self.program.package}: expected the state {expected} (see make_state), got {got}")

    def _sample(self, feature: Feature, value: Any) -> np.ndarray:
        """[H, W, C] for an image, the declared shape for an array."""
        if value is None and feature.default is not None:
            value = np.full(feature.default_shape, feature.default, feature.dtype)
        if feature.kind == "array":
            return self._array(feature, value)
        return self._image(feature, value)

    def _image(self, feature: Feature, value: Any) -> np.ndarray:
        """A PIL image or array as [H, W, C]."""
        if not isinstance(value, np.ndarray):
            expected = _PIL_MODES[feature.color_space or ""]
            mode = getattr(value, "mode", None)
            if mode != expected:
                got = f"mode {mode}" if mode else type(value).__name__
                wanted = f"a PIL image of mode {expected} (use convert) or a {feature.dtype} array"
                raise self._refused(feature, wanted, got)
            value = np.asarray(value)
            value = value[:, :, np.newaxis] if value.ndim == 2 else value  # gray has no channel dimension
            value = value.astype(feature.dtype)
        return self._array(feature, value)

    def _batch(self, feature: Feature, value: Any) -> np.ndarray:
        array = np.asarray(value)
        if array.ndim == 0 or len(array) == 0:
            raise self._refused(feature, "samples, stacked, 1 or more", f"shape {list(array.shape)}")
        first = array[:1] if _leads_with_one(feature) else array[0]
        if not feature.accepts(first.shape):
            raise self._refused(feature, f"samples of {feature.expected_shape()}", f"shape {list(array.shape)}")
        return self._elements(feature, array)

    def _sample_shape(self, name: str, batch: np.ndarray) -> tuple[int, ...]:
        return (1, *batch.shape[1:]) if _leads_with_one(self._features[name]) else tuple(batch.shape[1:])

    def _array(self, feature: Feature, value: Any) -> np.ndarray:
        array = np.asarray(value)
        if not feature.accepts(array.shape):
            raise self._refused(feature, feature.expected_shape(), f"shape {list(array.shape)}")
        return self._elements(feature, array)

    def _elements(self, feature: Feature, array: np.ndarray) -> np.ndarray:
        target = np.dtype(feature.dtype)
        if not (array.dtype.kind in "iuf" and np.can_cast(array.dtype, target, "same_kind")) or (
            feature.kind == "image" and array.dtype != target
        ):
            raise self._refused(feature, f"{feature.dtype} of {feature.expected_shape()}", f"{array.dtype}")
        # A Float16 input is rounded as Core ML would on the way in.
        array = array.astype(target)
        return array if feature.kind == "image" and target == np.uint8 else array.astype(_computed(target))

    def _refused(self, feature: Feature, expected: str, got: str) -> PackageError:
        return PackageError(f"{self.program.package}: input {feature.name!r} expects {expected}, got {got}")


def _computed(dtype: np.dtype[Any]) -> type[np.generic]:
    """What stands for the element type while computing."""
    return np.float32 if dtype.kind == "f" else np.int32


def _leads_with_one(feature: Feature) -> bool:
    """Whether one sample already has a leading 1 that stands for the batch."""
    return feature.kind == "array" and feature.default_shape[:1] == (1,)


def _join(results: list[np.ndarray]) -> np.ndarray:
    """Samples' results as one batch, along the leading 1 if they have one."""
    return np.concatenate(results) if results[0].shape[:1] == (1,) else np.stack(results)


def _to_pixels(value: np.ndarray, image: Feature) -> np.ndarray:
    """From the program's [N, C, H, W] to uint8 [N, H, W, C] in the order R, G, B (Float16 gray: Float32)."""
    pixels = np.moveaxis(value, 1, -1)
    if image.color_space == "BGR":
        pixels = pixels[..., ::-1]
    return pixels if image.dtype == "float16" else np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _to_image(pixels: np.ndarray) -> Image.Image:
    """[H, W, C] as PIL shows it: gray has no channel dimension."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
