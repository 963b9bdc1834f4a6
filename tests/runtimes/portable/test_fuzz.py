"""Damaged packages: each one runs or is refused in one line that names it. No other error, no crash, no hang.

Some hundred mutations, always the same, run with the other tests, and ten times as many random ones with the slow
tests. `FUZZ_EXAMPLES=1000 pytest -m slow` on this file takes that many of each kind and prints the mutation that a
failure boils down to. Mutations run in a process of their own: see `attempts`.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.proto import Model_pb2
from google.protobuf.descriptor import FieldDescriptor as Field
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from coreml_prune_bench.runtimes.portable import registry, translate  # noqa: F401  (which fills the registry)
from tests.packages import from_mil, from_torch
from tests.runtimes.portable.attempts import Attempts

FEW = 8
EXAMPLES = [
    pytest.param(FEW, id="few"),
    pytest.param(int(os.environ.get("FUZZ_EXAMPLES", "80")), id="many", marks=pytest.mark.slow),
]
FIELDS_PER_BYTES = 4
"""Most changed bytes are refused when the file is parsed; changed fields get further."""


def sparse_classifier(path: Path) -> Path:
    """An image classifier with sparse, palettized and dense weights, and BatchNorm."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, stride=2, groups=2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 12),
        torch.nn.Softmax(1),
    )
    dense = path.with_name("dense.mlpackage")
    from_torch(
        dense,
        network,
        (1, 3, 8, 8),
        inputs=[ct.ImageType("image", (1, 3, 8, 8), scale=1 / 255)],
        outputs=None,
        classifier_config=ct.ClassifierConfig([f"class {k}" for k in range(12)]),
        compute_precision=ct.precision.FLOAT16,
    )
    model = ct.models.MLModel(str(dense), skip_model_load=True)
    sparse = cto.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0)
    palettized = cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0)
    pruned = cto.prune_weights(model, cto.OptimizationConfig(op_type_configs={"conv": sparse}))
    cto.palettize_weights(pruned, cto.OptimizationConfig(op_type_configs={"linear": palettized})).save(str(path))
    return path


def program_of_shapes(path: Path) -> Path:
    """Shapes that are computed, slices, parts put together again, and a branch."""

    def build(x: Any) -> Any:
        size = mb.shape(x=x)
        rows = mb.slice_by_index(x=size, begin=[0], end=[1], stride=[1], squeeze_mask=[True])
        top = mb.slice_by_index(x=x, begin=[0, 1], end=[2, 0], end_mask=[False, True], stride=[1, 2])
        padded = mb.pad(x=top, pad=[1, 0, 0, 2], mode="constant", constant_val=0.5)
        first, _ = mb.split(x=mb.concat(values=[padded, padded], axis=1), num_splits=2, axis=1)
        filled = mb.fill(shape=mb.concat(values=[mb.expand_dims(x=rows, axes=[0]), [5]], axis=0), value=0.25)
        branch = mb.cond(
            pred=mb.greater(x=mb.reduce_sum(x=x, axes=[0, 1]), y=0.0),
            _true_fn=lambda: mb.gather(x=filled, indices=[2, 0, 1], axis=0),
            _false_fn=lambda: mb.mul(x=first, y=2.0),
        )
        tiled = mb.tile(x=mb.add(x=first, y=branch), reps=[2, 1])
        both = mb.concat(
            values=[tiled, mb.mul(x=tiled, y=np.linspace(0, 1, 30, dtype=np.float32).reshape(6, 5))], axis=1
        )
        flat = mb.reshape(x=mb.transpose(x=both, perm=[1, 0]), shape=[4, -1])
        mean = mb.reduce_mean(x=flat, axes=[1], keep_dims=True)
        return mb.add(x=mb.softmax(x=flat, axis=-1), y=mean), mb.cast(x=rows, dtype="fp32")

    return from_mil(path, build, (4, 6))


def program_of_windows(path: Path) -> Path:
    """What ONNX Runtime computes with kernels, strides, pads, scales and positions, which it does not all check."""
    draw = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return draw.normal(size=shape).astype(np.float32)

    def build(x: Any) -> Any:
        convolved = mb.conv(x=x, weight=weight(6, 2, 3, 3), strides=[1, 1], pad_type="same", dilations=[2, 1], groups=2)
        back = mb.conv_transpose(
            x=convolved, weight=weight(6, 4, 2, 2), strides=[2, 2], pad_type="custom", pad=[0, 1, 0, 1]
        )
        pooled = mb.avg_pool(
            x=back, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1], ceil_mode=True
        )
        most = mb.max_pool(x=pooled, kernel_sizes=[2, 2], strides=[1, 2], pad_type="valid")
        resized = mb.resize_bilinear(x=most, target_size_height=5, target_size_width=7, sampling_mode="ALIGN_CORNERS")
        larger = mb.upsample_nearest_neighbor(x=resized, scale_factor_height=2.0, scale_factor_width=1.0)
        boxes = np.array([[1, 1, 3, 3], [0, 2, 4, 5]], np.float32)
        cropped = mb.crop_resize(
            x=larger, boxes=boxes, box_indices=np.array([0, 0], np.int32), target_height=2, target_width=3
        )
        normal = mb.instance_norm(x=larger, gamma=weight(4), beta=weight(4), epsilon=1e-5)
        values, positions = mb.topk(x=mb.reshape(x=normal, shape=[4, 70]), k=3, axis=1)
        hot = mb.one_hot(indices=positions, one_hot_vector_size=70, axis=-1, on_value=1.0, off_value=0.0)
        picked = mb.gather_nd(x=values, indices=np.array([[0, 1], [3, 2]], np.int32), batch_dims=0)
        windows = mb.sliding_windows(x=values, axis=1, size=2, stride=1)
        spread = mb.scatter(data=values, indices=np.array([1, 0], np.int32), updates=weight(2, 3), axis=0, mode="add")
        state, _, _ = mb.lstm(
            x=mb.reshape(x=values, shape=[3, 1, 4]), initial_h=weight(1, 2), initial_c=weight(1, 2),
            weight_ih=weight(8, 4), weight_hh=weight(8, 2), bias=weight(8), direction="forward",
        )  # fmt: skip
        folded = mb.space_to_depth(x=mb.pixel_shuffle(x=x, upscale_factor=2), block_size=4)
        summed = mb.cumsum(x=values, axis=1, exclusive=True, reverse=False)
        best = mb.scaled_dot_product_attention(query=windows, key=windows, value=windows)
        return cropped, hot, picked, spread, state, folded, summed, best

    return from_mil(path, build, (1, 4, 8, 8), opset=ct.target.iOS18)


PROGRAMS: dict[str, Callable[[Path], Path]] = {
    "classifier": sparse_classifier,
    "shapes": program_of_shapes,
    "windows": program_of_windows,
}


@dataclass
class Victim:
    """An intact package, and a copy to damage."""

    intact: Path
    copy: Path
    attempts: Attempts

    def read(self, file: str) -> bytes:
        return (self.intact / file).read_bytes()

    def outcome(self, file: str, content: bytes) -> str:
        """What comes of the package with this one file changed."""
        (self.copy / file).write_bytes(content)
        try:
            return self.attempts.outcome(self.copy)
        finally:
            shutil.copy(self.intact / file, self.copy / file)


@pytest.fixture(scope="module", params=PROGRAMS)
def victim(request: pytest.FixtureRequest, attempts: Attempts, tmp_path_factory: pytest.TempPathFactory) -> Victim:
    folder = tmp_path_factory.mktemp("fuzz")
    intact = PROGRAMS[request.param](folder / "intact.mlpackage")
    copy = shutil.copytree(intact, folder / "damaged.mlpackage")
    assert attempts.outcome(copy) == "ran"
    return Victim(intact, copy, attempts)


SPECIFICATION = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
MANIFEST = "Manifest.json"


def check(examples: int, always_the_same: bool, test: Callable[[st.DataObject], str]) -> None:
    """`test` draws a mutation and returns its outcome."""

    @settings(
        max_examples=examples,
        derandomize=always_the_same,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        outcome = test(data)
        assert outcome == "ran" or outcome.startswith("refused: "), outcome

    run()


@pytest.mark.parametrize("file", [SPECIFICATION, WEIGHTS, MANIFEST])
@pytest.mark.parametrize("examples", EXAMPLES)
def test_changed_bytes(victim: Victim, file: str, examples: int) -> None:
    content = victim.read(file)
    check(examples, examples == FEW, lambda data: victim.outcome(file, data.draw(changed_bytes(content))))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_changed_fields(victim: Victim, examples: int) -> None:
    content = victim.read(SPECIFICATION)
    check(
        FIELDS_PER_BYTES * examples,
        examples == FEW,
        lambda data: victim.outcome(SPECIFICATION, changed_fields(data, content)),
    )


# --- bytes


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes written over, cut out, or copied to another place."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        start, length = draw(st.integers(0, len(changed))), draw(st.sampled_from([1, 1, 2, 8, 64, 4096]))
        match draw(st.sampled_from(["write", "write", "cut", "copy", "end"])):
            case "write":
                changed[start : start + length] = draw(st.binary(min_size=length, max_size=length))
            case "cut":
                del changed[start : start + length]
            case "copy":
                target = draw(st.integers(0, len(changed)))
                changed[target:target] = changed[start : start + length]
            case "end":
                del changed[start:]
    return bytes(changed)


# --- fields of the specification


@dataclass
class Place:
    """A field of a message, one element where it is repeated."""

    message: Any
    field: Field
    index: int | None = None


def changed_fields(data: st.DataObject, content: bytes) -> bytes:
    spec = Model_pb2.Model.FromString(content)
    for _ in range(data.draw(st.sampled_from([1, 1, 2, 3]))):
        # Of the places of each kind one, so that those of which there are many do not take all the attempts.
        kinds: dict[tuple[str, str], list[Place]] = {}
        for place in places_in(spec):
            kinds.setdefault((place.message.DESCRIPTOR.name, place.field.name), []).append(place)
        places = kinds[data.draw(st.sampled_from(sorted(kinds)))]
        place = places[data.draw(st.integers(0, len(places) - 1))]
        note(f"{place.message.DESCRIPTOR.name}.{place.field.name}[{place.index}] of\n{str(place.message)[:300]}")
        change(data, place, spec)
    return spec.SerializeToString()


def places_in(message: Any) -> Iterator[Place]:
    """Every place where something can be changed. The names of operations and what is for people are left alone."""
    for field, value in message.ListFields():
        if field.name in ("metadata", "shortDescription", "docString"):
            continue
        if is_map(field):
            yield Place(message, field)
            for key in sorted(value):
                if key != "name" and hasattr(value[key], "ListFields"):
                    yield from places_in(value[key])
        elif field.is_repeated:
            for index, element in enumerate(value):
                yield Place(message, field, index)
                if field.message_type:
                    yield from places_in(element)
        else:
            yield Place(message, field)
            if field.message_type:
                yield from places_in(value)


def is_map(field: Field) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def change(data: st.DataObject, place: Place, spec: Any) -> None:
    message, field, index = place.message, place.field, place.index
    held = getattr(message, field.name)
    if is_map(field):
        keys = sorted(held)
        key = keys[data.draw(st.integers(0, len(keys) - 1))]
        other = data.draw(st.sampled_from([*keys, "x", "axis", "val", "main", "CoreML8"]))
        if data.draw(st.booleans()) and hasattr(held[key], "CopyFrom"):
            held[other].CopyFrom(copied(held[key]))
        else:
            del held[key]
    elif field.message_type and index is None:
        if data.draw(st.booleans()):
            message.ClearField(field.name)
        else:
            held.CopyFrom(other_message(data, held, spec))
    elif field.message_type:
        match data.draw(st.sampled_from(["remove", "repeat", "replace", "swap"])):
            case "remove":
                del held[index]
            case "repeat":
                held.add().CopyFrom(copied(held[index]))
            case "replace":
                held[index].CopyFrom(other_message(data, held[index], spec))
            case "swap":
                other = data.draw(st.integers(0, len(held) - 1))
                kept, swapped = copied(held[index]), copied(held[other])
                held[index].CopyFrom(swapped)
                held[other].CopyFrom(kept)
    elif index is None:
        setattr(message, field.name, scalar(data, field, held, spec))
    elif data.draw(st.integers(0, 3)):
        held[index] = scalar(data, field, held[index], spec)
    else:
        del held[index]


def other_message(data: st.DataObject, message: Any, spec: Any) -> Any:
    """A copy of another message of the same type, from anywhere."""
    found = [m for m in messages_in(spec) if m.DESCRIPTOR is message.DESCRIPTOR]
    return copied(found[data.draw(st.integers(0, len(found) - 1))])


def copied(message: Any) -> Any:
    """A message must not be copied onto its own parent: protobuf clears the parent first, and crashes."""
    return type(message).FromString(message.SerializeToString())


def messages_in(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if is_map(field):
            yield from (
                m for key in sorted(value) if hasattr(value[key], "ListFields") for m in messages_in(value[key])
            )
        elif field.message_type:
            yield from (m for element in (value if field.is_repeated else [value]) for m in messages_in(element))


RANGES = {
    Field.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    Field.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    Field.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    Field.CPPTYPE_UINT64: (0, (1 << 64) - 1),
    Field.CPPTYPE_ENUM: (-(1 << 31), (1 << 31) - 1),
}
EXTREMES = [0, 1, 2, 3, 7, 64, 1000, 1 << 20, 1 << 30, 10**12, -1, -2, -7]


def scalar(data: st.DataObject, field: Field, value: Any, spec: Any) -> Any:
    if field.cpp_type in RANGES:
        low, high = RANGES[field.cpp_type]
        near = [value - 1, value + 1, low, high]
        return data.draw(st.sampled_from([v for v in [*EXTREMES, *near] if low <= v <= high]))
    if field.cpp_type in (Field.CPPTYPE_FLOAT, Field.CPPTYPE_DOUBLE):
        return data.draw(st.sampled_from([0.0, -1.0, 0.5, 1e30, float("inf"), float("nan")]))
    if field.cpp_type == Field.CPPTYPE_BOOL:
        return not value
    if isinstance(value, bytes):
        return data.draw(changed_bytes(value))
    types = sorted(registry._OPERATIONS)
    names = sorted({m.name for m in messages_in(spec) if m.DESCRIPTOR.name == "NamedValueType"})
    odd = ["", "/", "../../../etc/passwd", "@model_path/../../x", "\x00", "a\nb", "fp16", "int32", "same", "custom"]
    return data.draw(st.one_of(map(st.sampled_from, (types, names or odd, odd))))
