"""One prediction from files: a package's inputs as they were named on the command line, and its outputs put into words.

Like the runtime it bends no input that it was not asked to bend: an image of another size is refused unless `resize` is
set. What was done to an input is told beside the result.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from coreml_prune_bench.core.errors import BenchError, DataError, did_you_mean
from coreml_prune_bench.core.files import refuse_folder, write_atomically
from coreml_prune_bench.data import preprocess
from coreml_prune_bench.data.scaling import scaled_part
from coreml_prune_bench.data.transform import ORIENTATION, shallow
from coreml_prune_bench.mlprogram.program import Feature
from coreml_prune_bench.models.paths import expanded
from coreml_prune_bench.models.pointers import pointer_problem
from coreml_prune_bench.records.predictions import Precision
from coreml_prune_bench.runtimes import portable

if TYPE_CHECKING:
    from coreml_prune_bench.runtimes.portable.session import Model

_MODES = {"RGB": "RGB", "BGR": "RGB", "GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}
_FIRST_VALUES = 8
_MOST_PIXELS = 1 << 24
"""Of an image that is made to fit: 4,096 by 4,096."""
_PART = 1 << 20
"""Elements of an output that are looked at at once."""

Plain = dict[str, Any]
"""What JSON can hold of an output."""


@dataclass(frozen=True)
class InputValue:
    """An input: what the package gets, and in words where it came from and what was done to it."""

    value: Any
    told: str


def predict(
    package: Path,
    inputs: Sequence[str],
    *,
    function: str | None = None,
    precision: Precision = "float32",
    resize: bool = False,
    top: int = 5,
    output_dir: Path | None = None,
) -> Plain:
    """Predict once from `inputs`, each "NAME=VALUE", and say what came out: plain data, for JSON or a person.

    A stateful package starts from its initial state. Images and arrays among the outputs are written to `output_dir`.
    Raises DataError for an input that cannot be read, PackageError for one that is not what the package declares.
    """
    if output_dir:
        refuse_folder(output_dir, f"--output-dir {output_dir}")
    model = portable.load(package, function=function, precision=precision)
    given = read_inputs(model, inputs, resize=resize)
    state = model.make_state() if model.states else None
    results = model.predict({name: one.value for name, one in given.items()}, state)
    files = _save(results, output_dir) if output_dir else {}
    return {
        "package": str(package),
        "runtime": "portable",
        "precision": precision,
        "inputs": {name: one.told for name, one in given.items()},
        "outputs": {name: describe(value, top) | files.get(name, {}) for name, value in results.items()},
    }


# --- inputs


def read_inputs(model: "Model", inputs: Sequence[str], *, resize: bool) -> dict[str, InputValue]:
    """The inputs that `inputs`, each "NAME=VALUE", name. The model itself checks that none is missing."""
    features = {feature.name: feature for feature in model.inputs}
    given: dict[str, InputValue] = {}
    for item in inputs:
        name, _, value = item.partition("=")
        if name not in features or not value:
            expected = ", ".join(_declared(feature) for feature in model.inputs)
            if value:
                near = did_you_mean(name, features)
                raise BenchError(f"--input {item}: {model.package} has no input {name!r}, it takes {expected}{near}")
            raise BenchError(f"--input {item}: expected NAME=VALUE, where {model.package} takes {expected}")
        if name in given:
            raise BenchError(f"--input {item}: {name!r} was given already")
        feature = features[name]
        is_image = feature.kind == "image" and not value.endswith(".npy")
        given[name] = _image(feature, value, resize=resize) if is_image else _array(feature, value)
    return given


def _declared(feature: Feature) -> str:
    kind = "an image of" if feature.kind == "image" else f"{feature.dtype} of"
    return f"{feature.name} ({kind} {feature.expected_shape()})"


def _image(feature: Feature, value: str, *, resize: bool) -> InputValue:
    """The decoded image in the mode that the package takes, of the size that it has or, where asked for, fitted."""
    _refuse_no_file(feature, value)
    try:
        image: PIL.Image.Image = PIL.Image.open(expanded(value))
        image.load()
    except Exception as error:  # Pillow's readers raise errors of every kind
        raise DataError(f"--input {feature.name}={value}: cannot be read as an image: {error}") from error
    done = [f"{image.width}x{image.height} {image.mode}"]
    if image.getexif().get(ORIENTATION, 1) != 1:
        done.append("EXIF orientation not applied")
    mode = _MODES[feature.color_space or ""]
    if image.mode != mode:
        try:
            image, cut = _in_mode(image, mode)
        except ValueError as error:
            raise DataError(f"--input {feature.name}={value}: {error}") from error
        done.append(f"converted to {mode}{cut}")
    channels = feature.default_shape[2]
    if resize and (image.height, image.width) != feature.default_shape[:2]:
        image = fit(image, *feature.default_shape[:2])
        done.append(f"resized and cropped to {image.width}x{image.height}")
    if not feature.accepts((image.height, image.width, channels)):
        raise BenchError(
            f"--input {feature.name}={value}: is {image.width}x{image.height}, expected {feature.expected_shape()} "
            "(height, width, channels); --resize scales the shorter side and crops the centre"
        )
    return InputValue(image, f"{value}, " + ", ".join(done))


def _in_mode(image: PIL.Image.Image, mode: str) -> tuple[PIL.Image.Image, str]:
    """The image in another mode, and what that cost. Raises ValueError as `shallow`.

    Numbers stay what they are where the package takes numbers (F), but 16 bits are put on the scale of 8 there.
    """
    if mode == "F" and image.mode in ("I", "F"):
        return image.convert(mode), ""
    eight = shallow(image)
    if eight is image:
        return image.convert(mode), ""
    if mode == "F":
        return PIL.Image.fromarray(np.asarray(image, np.float32) / 257), ", 65,535 as 255"
    return eight.convert(mode), ", of 16 bits the upper 8"


def fit(image: PIL.Image.Image, height: int, width: int) -> PIL.Image.Image:
    """The image scaled to cover `height` x `width`, and the centre of that.

    A square of colour is what `accuracy` feeds: torchvision's evaluation, Resize(256) and CenterCrop(224) at size 224.
    """
    if height * width > _MOST_PIXELS:
        raise BenchError(f"--resize makes images of at most {_MOST_PIXELS:,} pixels, not {width}x{height}")
    if image.mode == "RGB" and height == width:
        return PIL.Image.fromarray(preprocess(image, height))
    scale = max(height / image.height, width / image.width)
    size = max(width, round(scale * image.width)), max(height, round(scale * image.height))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return scaled_part(image, size, (left, top, left + width, top + height))


def _refuse_no_file(feature: Feature, value: str) -> None:
    path = expanded(value)
    if path.exists() and not path.is_file():  # to open a pipe is to wait for who writes into it
        raise DataError(f"--input {feature.name}={value}: it is no file, but a folder, a pipe or a device")
    if problem := pointer_problem(path):
        raise DataError(f"--input {feature.name}={value}: {problem}")


def _array(feature: Feature, value: str) -> InputValue:
    """From a .npy file, a .json file, or a number, which is enough for an input of one element."""
    _refuse_no_file(feature, value)
    try:
        if value.endswith(".npy"):
            # Mapped, so that a header of any size allocates nothing; the package says whether the shape is right.
            array: np.ndarray = np.load(expanded(value), mmap_mode="r", allow_pickle=False)
        else:
            array = np.array(json.loads(expanded(value).read_bytes() if value.endswith(".json") else value))
    except (OSError, ValueError, EOFError, RecursionError) as error:
        raise DataError(
            f"--input {feature.name}={value}: cannot be read, expected a .npy or .json file or a number: {error}"
        ) from error
    if array.dtype.kind not in "iufb":
        raise DataError(f"--input {feature.name}={value}: expected numbers, found {array.dtype}")
    if not value.endswith((".npy", ".json")):
        one = math.prod(feature.default_shape) == 1
        return InputValue(array.reshape(feature.default_shape) if one and array.size == 1 else array, value)
    return InputValue(array, f"{value}, {array.dtype} {list(array.shape)}")


# --- outputs


def describe(value: Any, top: int) -> Plain:
    """An output as plain data: a label, the likeliest classes, an image's size, or what an array holds."""
    if isinstance(value, PIL.Image.Image):
        return {"kind": "image", "mode": value.mode, "width": value.width, "height": value.height}
    if isinstance(value, Mapping):
        likeliest = sorted(value.items(), key=lambda item: -item[1])[:top]  # stable: of equal ones, the first class
        rows = [{"label": label, "probability": _number(score)} for label, score in likeliest]
        return {"kind": "probabilities", "classes": len(value), "top": rows}
    if isinstance(value, np.ndarray):
        return _described_array(value, top)
    return {"kind": "label", "value": value}


def _described_array(array: np.ndarray, top: int) -> Plain:
    flat = array.reshape(-1)
    extremes: list[Any] = []
    finite = 0
    for start in range(0, flat.size, _PART):  # an output can be as large as memory holds once
        part = flat[start : start + _PART]
        kept = part[np.isfinite(part)]
        finite += kept.size
        extremes += [kept.min(), kept.max()] if kept.size else []
    row: Plain = {"kind": "array", "dtype": str(array.dtype), "shape": list(array.shape)}
    if extremes:
        row |= {"min": _number(min(extremes)), "max": _number(max(extremes))}
    if finite < flat.size:
        row["not_finite"] = flat.size - finite
    row["first"] = [_number(element) for element in flat[:_FIRST_VALUES]]
    if array.dtype.kind == "f" and flat.size > 1 and array.shape[-1] == flat.size:
        # A vector may be scores: which positions are highest is a fact, what they mean the package does not say.
        row["top"] = [{"index": position, "value": _number(flat[position])} for position in _highest(flat, top)]
    return row


def _highest(flat: np.ndarray, top: int) -> list[int]:
    """The positions of the highest elements, the highest first, and of equal ones the first first."""
    starts = range(0, flat.size, _PART)
    best = [start + np.argsort(-flat[start : start + _PART], kind="stable")[:top] for start in starts]
    positions = np.sort(np.concatenate(best))
    return [int(position) for position in positions[np.argsort(-flat[positions], kind="stable")][:top]]


def _number(value: Any) -> float | int | bool | None:
    """As JSON can hold it, in as few digits as tell a Float32 from its neighbours; None for NaN and infinity."""
    plain = np.asarray(value).item()
    if not isinstance(plain, float):
        return plain
    return float(str(np.float32(plain))) if math.isfinite(plain) else None


def _save(results: Mapping[str, Any], folder: Path) -> dict[str, Plain]:
    """Images as PNG (TIFF where pixels are floats), arrays as .npy; files of the same names are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Plain] = {}
    for name, value in results.items():
        if isinstance(value, PIL.Image.Image):
            path = folder / f"{name}{'.tiff' if value.mode == 'F' else '.png'}"
        elif isinstance(value, np.ndarray):
            path = folder / f"{name}.npy"
        else:
            continue
        content = BytesIO()
        if isinstance(value, np.ndarray):
            np.save(content, value)
        else:
            value.save(content, path.suffix[1:].upper())
        write_atomically(path, content.getvalue())
        files[name] = {"file": str(path)}
    return files
