"""A loaded package: checks what it is fed, runs it in ONNX Runtime on the CPU, returns NumPy arrays.

It must know no operation, and must refuse an input rather than bend it: Core ML does not resize an image either.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]

from harness.errors import PackageError
from harness.runtimes.portable.reader import Feature, read
from harness.runtimes.portable.translate import translate

_PIL_MODES = {"RGB": "RGB", "BGR": "RGB", "GRAYSCALE": "L"}
_ERRORS_ONLY = 3


class Model:
    """A package that runs. `predict` takes one sample as Core ML does, `predict_batch` N of them.

    An image is a PIL image or uint8 [H, W, C], channels in the order R, G, B whatever the model's own order is. An
    array has the declared shape. Results are Float32 (or integers), of the declared shapes.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        self.program = read(path)
        translation = translate(self.program)
        self.any_batch = translation.any_batch
        self._serialized = translation.model.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        if threads is not None:
            options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self._serialized, options, providers=["CPUExecutionProvider"])

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.program.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.program.results

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """One sample: a PIL image or array for each input, of the declared shape. Results have the declared shapes.

        Raises PackageError where a name, shape, element type or image size is not what the model declares.
        """
        self._check_names(inputs)
        samples = {feature.name: self._sample(feature, inputs[feature.name]) for feature in self.program.inputs}
        return self._run(samples)

    def predict_batch(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """N samples at once, stacked: uint8 [N, H, W, C] for an image, [N, ...] for a declared [1, ...] or [...].

        Results are stacked in the same way. Raises PackageError as `predict` does.
        """
        self._check_names(inputs)
        batches = {feature.name: self._batch(feature, inputs[feature.name]) for feature in self.program.inputs}
        sizes = {name: len(batch) for name, batch in batches.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise PackageError(f"{self.program.package}: expected the same number of samples, 1 or more, got {sizes}")
        if self.any_batch:
            return self._run(batches)
        return self._one_by_one(batches, next(iter(sizes.values())))

    def to_onnx(self, path: str | Path) -> None:
        """Write the translated model, with its weights decompressed, for a look at it with other tools."""
        onnx.save_model(onnx.load_model_from_string(self._serialized), str(path))

    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = self._session.run(list(self.output_names), dict(feeds))
        return dict(zip(self.output_names, values, strict=True))

    def _one_by_one(self, batches: Mapping[str, np.ndarray], samples: int) -> dict[str, np.ndarray]:
        leads = {feature.name: _leads_with_one(feature) for feature in self.program.inputs}
        results = [
            self._run({name: batch[i : i + 1] if leads[name] else batch[i] for name, batch in batches.items()})
            for i in range(samples)
        ]
        return {name: _join([result[name] for result in results]) for name in self.output_names}

    # --- what a caller gives

    def _check_names(self, inputs: Mapping[str, Any]) -> None:
        if set(inputs) != set(self.input_names):
            expected, got = sorted(self.input_names), sorted(inputs)
            raise PackageError(f"{self.program.package}: expected inputs {expected}, got {got}")

    def _sample(self, feature: Feature, value: Any) -> np.ndarray:
        if feature.kind == "array":
            return self._array(feature, value, feature.shape)
        return self._image(feature, value)[np.newaxis]  # [1, H, W, C]

    def _image(self, feature: Feature, value: Any) -> np.ndarray:
        """A PIL image or array as uint8 [H, W, C]. Known by its `mode`, so that PIL need not be here."""
        if not isinstance(value, np.ndarray):
            expected = _PIL_MODES[feature.color_space or ""]
            mode = getattr(value, "mode", None)
            if mode != expected:
                got = f"mode {mode}" if mode else type(value).__name__
                raise self._refused(feature, f"a PIL image of mode {expected} (use convert) or a uint8 array", got)
            value = np.asarray(value)
            value = value[:, :, np.newaxis] if value.ndim == 2 else value  # grayscale has no channel dimension
        return self._array(feature, value, feature.shape)

    def _batch(self, feature: Feature, value: Any) -> np.ndarray:
        shape = feature.shape[1:] if _leads_with_one(feature) else feature.shape
        return self._array(feature, value, (None, *shape))

    def _array(self, feature: Feature, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
        array = np.asarray(value)
        fits = array.ndim == len(shape) and all(s in (None, got) for s, got in zip(shape, array.shape, strict=True))
        expected = f"shape {['any' if size is None else size for size in shape]}"
        if not fits:
            raise self._refused(feature, expected, f"shape {list(array.shape)}")
        target = np.dtype(feature.dtype)
        if not (array.dtype.kind in "iuf" and np.can_cast(array.dtype, target, "same_kind")) or (
            feature.kind == "image" and array.dtype != target
        ):
            raise self._refused(feature, f"{feature.dtype} of {expected}", f"{array.dtype}")
        # A Float16 input is rounded as Core ML would on the way in; everything after that is Float32.
        array = array.astype(target)
        return array.astype(np.float32) if target.kind == "f" else array

    def _refused(self, feature: Feature, expected: str, got: str) -> PackageError:
        return PackageError(f"{self.program.package}: input {feature.name!r} expects {expected}, got {got}")


def _leads_with_one(feature: Feature) -> bool:
    """Whether one sample already has a leading 1 that stands for the batch."""
    return feature.kind == "array" and feature.shape[:1] == (1,)


def _join(results: list[np.ndarray]) -> np.ndarray:
    """Samples' results as one batch, along the leading 1 if they have one."""
    return np.concatenate(results) if results[0].shape[:1] == (1,) else np.stack(results)
