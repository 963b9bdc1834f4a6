"""Gathering and scattering, against the definitions written out in NumPy and coremltools' own value inference."""

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.ops.defs._utils import compute_gather

from coreml_prune_bench.core.errors import BenchError, PackageError
from coreml_prune_bench.runtimes.portable import load
from coreml_prune_bench.runtimes.portable.session import Model
from tests.packages import from_mil
from tests.runtimes.portable.programs import Operations, convert

X = np.random.default_rng(0).normal(0, 2, (3, 4, 5)).astype(np.float32)
MODES = {
    "add": np.add,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "sub": np.subtract,
}


def as_integers(x: Any) -> Any:
    return mb.cast(x=x, dtype="int32")


def predict(model: Model, names: Operations, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    results = model.predict({name: array.astype(np.float32) for name, array in zip("xyz", inputs, strict=False)})
    return dict(zip(names, results.values(), strict=True))


# --- gather

# Indices, axis and batch_dims.
GATHERS: dict[str, tuple[Any, int, int]] = {
    "one": (2, 0, 0),
    "negative": (-1, -1, 0),
    "vector": ([3, 0, -4, 1], 1, 0),
    "matrix": ([[4, 0, 1], [-1, 2, 2]], 2, 0),
    "batch": ([[0, 3], [1, 1], [-1, 2]], 1, 1),
    "batch of one": ([0, 3, -1], 1, 1),
    "batch, axis further on": ([[0, 4], [1, 1], [-1, 2]], 2, 1),
    "batch of two": ([[0, 4, 1, 1], [0, 0, -1, 2], [3, 3, 3, 0]], 2, 2),
    "batch, matrix, axis further on": ([[[0, 4]], [[1, 1]], [[-1, 2]]], -1, 1),
}


def test_gather_is_coremltools_own(tmp_path: Path) -> None:
    operations: Operations = {}
    for name, (indices, axis, aligned) in GATHERS.items():
        array, options = np.array(indices, np.int32), {"axis": axis, "batch_dims": aligned, "validate_indices": False}
        operations[name] = lambda x, y, array=array, options=options: mb.gather(x=x, indices=array, **options)
        # y is 0, which nobody knows before the program runs
        operations[f"{name}, dynamic"] = lambda x, y, array=array, options=options: mb.gather(
            x=x, indices=mb.add(x=array, y=mb.squeeze(x=as_integers(y))), **options
        )
    model = convert(tmp_path, operations, X.shape, (1,))
    for name, result in predict(model, operations, X, np.zeros(1)).items():
        indices, axis, aligned = GATHERS[name.removesuffix(", dynamic")]
        positions = np.array(indices) if np.ndim(indices) else indices
        reference = compute_gather(X, positions, axis % X.ndim, aligned)
        np.testing.assert_array_equal(result, reference, err_msg=name)


def test_gather_of_integers_and_by_narrow_indices(tmp_path: Path) -> None:
    operations: Operations = {
        "int16": lambda x, y: mb.gather(x=x, indices=mb.cast(x=y, dtype="int16"), axis=1, validate_indices=False),
        "uint16": lambda x, y: mb.gather_along_axis(
            x=mb.cast(x=x, dtype="int16"), indices=mb.cast(x=y, dtype="uint16"), axis=1, validate_indices=False
        ),
        "int8": lambda x, y: mb.gather_nd(
            x=x, indices=mb.cast(x=mb.expand_dims(x=y, axes=[2]), dtype="int8"), batch_dims=1, validate_indices=False
        ),
    }
    x, y = np.arange(8).reshape(2, 4) * 1000, np.array([[3, 0], [1, 1]])
    operations["uint16"], narrow = operations["uint16"], operations["uint16"]
    operations["uint16"] = lambda x, y: mb.cast(x=narrow(x, y), dtype="int32")
    model = convert(tmp_path, operations, x.shape, y.shape, dtype=types.int32)
    results = [value.tolist() for value in model.predict({"x": x.astype(np.int32), "y": y.astype(np.int32)}).values()]
    assert results == [x[:, y].tolist(), np.take_along_axis(x, y, 1).tolist(), np.take_along_axis(x, y, 1).tolist()]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_along_axis_is_numpys(axis: int, tmp_path: Path) -> None:
    shape = list(X.shape)
    shape[axis] = 6
    indices = np.random.default_rng(1).integers(-X.shape[axis], X.shape[axis], shape)
    operations: Operations = {
        "": lambda x, y: mb.gather_along_axis(x=x, indices=as_integers(y), axis=axis, validate_indices=False)
    }
    model = convert(tmp_path, operations, X.shape, tuple(shape))
    np.testing.assert_array_equal(predict(model, operations, X, indices)[""], np.take_along_axis(X, indices, axis))


def test_gather_nd(tmp_path: Path) -> None:
    indices = np.array([[[2, 1], [0, 3]], [[1, 1], [2, 0]], [[0, 0], [-1, -2]]])  # [3, 2, 2]
    operations: Operations = {
        "0": lambda x, y: mb.gather_nd(x=x, indices=as_integers(y), batch_dims=0, validate_indices=False),
        "1": lambda x, y: mb.gather_nd(x=x, indices=as_integers(y), batch_dims=1, validate_indices=False),
    }
    model = convert(tmp_path, operations, X.shape, indices.shape)
    results = predict(model, operations, X, indices)
    np.testing.assert_array_equal(results["0"], X[indices[..., 0], indices[..., 1]])
    np.testing.assert_array_equal(results["1"], X[np.arange(3)[:, None], indices[..., 0], indices[..., 1]])


# --- scatter


def scattered(data: np.ndarray, places: list[Any], updates: list[np.ndarray], mode: str) -> np.ndarray:
    result = data.copy()
    for place, update in zip(places, updates, strict=True):
        result[place] = update if mode == "update" else MODES[mode](result[place], update)
    return result


def updates_of(shape: tuple[int, ...]) -> np.ndarray:
    """Such that a product of two, and a quotient, is exact."""
    return np.random.default_rng(2).choice([-2.0, -1.0, 0.5, 4.0], shape).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scatter_in_every_mode(axis: int, tmp_path: Path) -> None:
    indices = np.array([2, 0, 2])  # the same place twice
    shape = list(X.shape)
    shape[axis] = len(indices)
    updates = updates_of(tuple(shape))
    operations: Operations = {
        mode: lambda x, y, z, mode=mode: mb.scatter(
            data=x, indices=as_integers(y), updates=z, axis=axis, mode=mode, validate_indices=False
        )
        for mode in MODES
    }
    model = convert(tmp_path, operations, X.shape, indices.shape, tuple(shape))
    results = predict(model, operations, X, indices, updates)
    rows = list(np.moveaxis(updates, axis, 0))
    for mode, result in results.items():
        reference = scattered(np.moveaxis(X, axis, 0), list(indices), rows, mode)
        np.testing.assert_allclose(result, np.moveaxis(reference, 0, axis), rtol=1e-6, err_msg=mode)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scatter_along_axis_in_every_mode(axis: int, tmp_path: Path) -> None:
    shape = list(X.shape)
    shape[axis] = 6
    indices = np.random.default_rng(3).integers(0, X.shape[axis], shape)
    updates = updates_of(tuple(shape))
    operations: Operations = {
        mode: lambda x, y, z, mode=mode: mb.scatter_along_axis(
            data=x, indices=as_integers(y), updates=z, axis=axis, mode=mode, validate_indices=False
        )
        for mode in MODES
    }
    model = convert(tmp_path, operations, X.shape, tuple(shape), tuple(shape))
    results = predict(model, operations, X, indices, updates)
    places = []
    for position in np.ndindex(*shape):
        place = list(position)
        place[axis] = indices[position]
        places.append(tuple(place))
    for mode, result in results.items():
        reference = scattered(X, places, [updates[position] for position in np.ndindex(*shape)], mode)
        np.testing.assert_allclose(result, reference, rtol=1e-6, err_msg=mode)


def test_scatter_nd_in_every_mode(tmp_path: Path) -> None:
    indices = np.array([[[2, 1], [0, 3]], [[2, 1], [1, 0]]])
    updates = updates_of((2, 2, 5))
    operations: Operations = {
        mode: lambda x, y, z, mode=mode: mb.scatter_nd(
            data=x, indices=as_integers(y), updates=z, mode=mode, validate_indices=False
        )
        for mode in MODES
    }
    model = convert(tmp_path, operations, X.shape, indices.shape, updates.shape)
    results = predict(model, operations, X, indices, updates)
    places = [tuple(place) for place in indices.reshape(-1, 2)]
    for mode, result in results.items():
        reference = scattered(X, places, list(updates.reshape(-1, 5)), mode)
        np.testing.assert_allclose(result, reference, rtol=1e-6, err_msg=mode)


def test_scatter_by_constant_indices_and_of_integers(tmp_path: Path) -> None:
    operations: Operations = {
        mode: lambda x, y, mode=mode: mb.scatter(
            data=x, indices=np.array([1, 0], np.int32), updates=y, mode=mode, validate_indices=True
        )
        for mode in (*MODES, "update")
    }
    x, y = np.array([[12, -6], [9, 8]], np.int32), np.array([[3, 2], [4, -3]], np.int32)
    model = convert(tmp_path, operations, x.shape, y.shape, dtype=types.int32)
    results = dict(zip(operations, model.predict({"x": x, "y": y}).values(), strict=True))
    assert {mode: value.tolist() for mode, value in results.items()} == {
        "add": [[16, -9], [12, 10]],
        "div": [[3, 2], [3, 4]],
        "max": [[12, -3], [9, 8]],
        "min": [[4, -6], [3, 2]],
        "mul": [[48, 18], [27, 16]],
        "sub": [[8, -3], [6, 6]],
        "update": [[4, -3], [3, 2]],
    }


def test_scatter_adds_where_no_mode_is_given(tmp_path: Path) -> None:
    # The example of the definition.
    operations: Operations = {"": lambda x, y: mb.scatter(data=x, indices=np.array([1, 0], np.int32), updates=y)}
    x, y = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[5, 6, 7], [8, 9, 10]])
    model = convert(tmp_path, operations, x.shape, y.shape, opset=ct.target.iOS15)
    assert predict(model, operations, x, y)[""].tolist() == [[9, 11, 13], [9, 11, 13]]


# --- out of bounds


def scatters(validate: dict[str, bool]) -> Operations:
    """Each of the three into x [2, 3], with the updates z [2, 3] of z [2]."""
    return {
        "scatter": lambda x, y, z: mb.scatter(data=x, indices=as_integers(y), updates=z, mode="update", **validate),
        "scatter_along_axis": lambda x, y, z: mb.scatter_along_axis(
            data=x,
            indices=as_integers(mb.tile(x=mb.expand_dims(x=y, axes=[1]), reps=[1, 3])),
            updates=z,
            mode="update",
            **validate,
        ),
        "scatter_nd": lambda x, y, z: mb.scatter_nd(
            data=x, indices=as_integers(mb.expand_dims(x=y, axes=[1])), updates=z, mode="update", **validate
        ),
    }


DATA, UPDATES = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[10, 20, 30], [40, 50, 60]])


@pytest.mark.parametrize("outside", [-1, 2, 10])
def test_scatter_of_ios17_leaves_out_what_is_out_of_bounds(outside: int, tmp_path: Path) -> None:
    operations = scatters({"validate_indices": False})
    model = convert(tmp_path, operations, (2, 3), (2,), (2, 3))
    results = predict(model, operations, DATA, np.array([outside, 0]), UPDATES)
    assert {name: value.tolist() for name, value in results.items()} == {
        name: [[40, 50, 60], [4, 5, 6]] for name in operations
    }


def test_scatter_in_two_dimensions_leaves_out_what_is_out_of_bounds_in_one(tmp_path: Path) -> None:
    operations: Operations = {
        "dynamic": lambda x, y, z: mb.scatter_nd(data=x, indices=as_integers(y), updates=z, validate_indices=False),
        "constant": lambda x, y, z: mb.scatter_nd(
            data=x, indices=np.array([[1, 0], [0, 3], [0, -1], [2, 0]], np.int32), updates=z, validate_indices=False
        ),
    }
    model = convert(tmp_path, operations, (2, 3), (4, 2), (4,))
    results = predict(model, operations, DATA, np.array([[1, 0], [0, 3], [0, -1], [2, 0]]), np.full(4, 100))
    for result in results.values():
        assert result.tolist() == [[1, 2, 3], [104, 5, 6]]


def test_scatter_before_ios17_counts_from_the_end(tmp_path: Path) -> None:
    operations = scatters({})
    model = convert(tmp_path, operations, (2, 3), (2,), (2, 3), opset=ct.target.iOS16)
    results = predict(model, operations, DATA, np.array([-1, 0]), UPDATES)
    assert {name: value.tolist() for name, value in results.items()} == {
        name: [[40, 50, 60], [10, 20, 30]] for name in operations
    }


VALIDATED: Operations = {
    "gather": lambda x, y: mb.gather(x=x, indices=as_integers(y), validate_indices=True),
    "gather_batch": lambda x, y: mb.gather(x=x, indices=as_integers(y), axis=1, batch_dims=1, validate_indices=True),
    "gather_along_axis": lambda x, y: mb.gather_along_axis(
        x=x, indices=as_integers(mb.expand_dims(x=y, axes=[1])), axis=1, validate_indices=True
    ),
    "gather_nd": lambda x, y: mb.gather_nd(
        x=x, indices=as_integers(mb.expand_dims(x=y, axes=[1])), validate_indices=True
    ),
    "scatter": lambda x, y: mb.scatter(data=x, indices=as_integers(y), updates=x, validate_indices=True),
    "scatter_along_axis": lambda x, y: mb.scatter_along_axis(
        data=x,
        indices=as_integers(mb.tile(x=mb.expand_dims(x=y, axes=[1]), reps=[1, 2])),
        updates=x,
        axis=0,
        validate_indices=True,
    ),
    "scatter_nd": lambda x, y: mb.scatter_nd(
        data=x, indices=as_integers(mb.expand_dims(x=y, axes=[1])), updates=x, validate_indices=True
    ),
}


@pytest.mark.parametrize("name", VALIDATED)
def test_validated_index_out_of_bounds_fails_while_running(name: str, tmp_path: Path) -> None:
    model = convert(tmp_path, {name: VALIDATED[name]}, (2, 2), (2,))
    x = np.array([[1, 2], [3, 4]], np.float32)
    model.predict({"x": x, "y": np.array([1, 0], np.float32)})
    for outside in (-1, 2):
        with pytest.raises(BenchError):
            model.predict({"x": x, "y": np.array([outside, 0], np.float32)})


def test_validated_constant_out_of_bounds_is_refused_while_loading(tmp_path: Path) -> None:
    path = from_mil(
        tmp_path / "m.mlpackage",
        lambda x: mb.gather(x=x, indices=np.array([0, -1], np.int32), validate_indices=False, name="rows"),
        (2, 2),
    )
    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = ct.utils.load_spec(str(path))
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    for operation in block.operations:  # coremltools would refuse to write it
        if operation.outputs[0].name == "rows_validate_indices_0":
            operation.attributes["val"].immediateValue.tensor.bools.values[0] = True
    file.write_bytes(spec.SerializeToString())
    with pytest.raises(PackageError, match=r"'gather' \(rows\): an index is out of bounds"):
        load(path)


# --- batches

TABLE = np.random.default_rng(4).normal(size=(6, 3)).astype(np.float32)

TOGETHER: Operations = {
    "gather along rows": lambda x, y: mb.gather(x=x, indices=np.array([3, 1], np.int32), axis=1),
    "gather from a table": lambda x, y: mb.gather(x=TABLE, indices=as_integers(y), axis=0),
    "gather aligned": lambda x, y: mb.gather(x=x, indices=as_integers(y), axis=1, batch_dims=1),
    "gather_along_axis": lambda x, y: mb.gather_along_axis(x=x, indices=as_integers(y), axis=1),
    "gather_nd": lambda x, y: mb.gather_nd(x=x, indices=as_integers(mb.expand_dims(x=y, axes=[2])), batch_dims=1),
    "scatter": lambda x, y: mb.scatter(data=x, indices=np.array([2, 0], np.int32), updates=y, axis=1),
    "scatter_along_axis": lambda x, y: mb.scatter_along_axis(data=x, indices=as_integers(y), updates=y, axis=1),
}
APART: Operations = {
    "gather of samples": lambda x, y: mb.gather(x=x, indices=np.array([0, 0], np.int32), axis=0),
    "gather for both": lambda x, y: mb.gather(x=x, indices=as_integers(y), axis=1),
    "scatter into samples": lambda x, y: mb.scatter(data=x, indices=np.array([0], np.int32), updates=x, axis=0),
    "scatter_nd": lambda x, y: mb.scatter_nd(data=x, indices=np.array([[0, 1]], np.int32), updates=[1.0]),
}


@pytest.mark.parametrize(("operations", "together"), [(TOGETHER, True), *(({n: w}, False) for n, w in APART.items())])
def test_batch_is_its_samples(operations: Operations, together: bool, tmp_path: Path) -> None:
    model = convert(tmp_path, operations, (1, 4), (1, 2))
    assert model.any_batch is together
    x = np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32)
    y = np.array([[0, 1], [3, 1], [2, 0]], np.float32)
    batch = model.predict_batch({"x": x, "y": y})
    for i in range(3):
        for name, value in model.predict({"x": x[i : i + 1], "y": y[i : i + 1]}).items():
            np.testing.assert_array_equal(batch[name][i].ravel(), value.ravel(), err_msg=name)
