"""Random numbers: their shape, range and distribution, and when they are drawn anew. No test looks at a value."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.runtimes.portable import load
from coreml_prune_bench.runtimes.portable.session import Model
from tests.packages import from_mil

N = 20_000
PROBABILITIES = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.1, 0.2]], np.float32)
HALF = np.float16

DRAWS: dict[str, Callable[[Any], Any]] = {
    "uniform": lambda x: mb.random_uniform(shape=(2, N // 2), low=-2.0, high=3.0, seed=7),
    "same seed": lambda x: mb.random_uniform(shape=(2, N // 2), low=-2.0, high=3.0, seed=7),
    "no seed": lambda x: mb.random_uniform(shape=(N,)),
    "no seed again": lambda x: mb.random_uniform(shape=(N,)),
    "one point": lambda x: mb.random_uniform(shape=(3,), low=2.0, high=2.0),
    "half": lambda x: mb.cast(x=mb.random_uniform(shape=(N,), low=HALF(0), high=HALF(1), seed=1), dtype="fp32"),
    "scalar": lambda x: mb.random_uniform(shape=np.zeros(0, np.int32), seed=1),
    "normal": lambda x: mb.random_normal(shape=(N,), mean=1.0, stddev=3.0, seed=1),
    "shape of x": lambda x: mb.random_normal(shape=mb.shape(x=_positive(x))),
    "bernoulli": lambda x: mb.random_bernoulli(shape=(N,), prob=0.3, seed=1),
    "never": lambda x: mb.random_bernoulli(shape=(N,), prob=0.0),
    "always": lambda x: mb.random_bernoulli(shape=(N,), prob=1.0),
    "logits": lambda x: mb.random_categorical(x=np.log(PROBABILITIES + np.float32(1e-30)), size=N, seed=1),
    "probs": lambda x: mb.random_categorical(x=PROBABILITIES, mode="probs", size=N),
    "vector": lambda x: mb.random_categorical(x=PROBABILITIES[0], mode="probs"),
}


def _positive(x: Any) -> Any:
    """Where x is positive: [how many, 2], which only running tells."""
    return mb.non_zero(x=mb.cast(x=mb.greater(x=x, y=0.0), dtype="fp32"))


X = np.array([[1, -1, 2, 3]], np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("random") / "m.mlpackage"
    return load(from_mil(path, lambda x: [draw(x) for draw in DRAWS.values()], X.shape), threads=1)


@pytest.fixture(scope="module", params=["float32", "float16"])
def drawn(model: Model, request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    again = load(model.package, threads=1, precision=request.param)
    return dict(zip(DRAWS, again.predict({"x": X}).values(), strict=True))


def test_shape_and_range(drawn: dict[str, np.ndarray]) -> None:
    shapes = {"uniform": (2, N // 2), "scalar": (), "shape of x": (3, 2), "logits": (2, N), "vector": (1,)}
    assert {name: drawn[name].shape for name in shapes} == shapes
    assert all(((values >= 0) & (values < 1)).all() for values in (drawn["no seed"], drawn["half"], drawn["scalar"]))
    assert ((drawn["uniform"] >= -2) & (drawn["uniform"] < 3)).all()
    assert (drawn["one point"] == 2).all()
    assert not drawn["never"].any()
    assert drawn["always"].all()
    assert set(np.unique(drawn["bernoulli"])) == {0, 1}


def test_distribution(drawn: dict[str, np.ndarray]) -> None:
    """Empirical distributions, within 5 standard errors or more: a right generator fails in none of a million runs."""
    bound = 2.7 / np.sqrt(N)  # Kolmogorov and Smirnov's, for one in a million
    for name, low, high in (("uniform", -2, 3), ("no seed", 0, 1), ("half", 0, 1)):
        below = (np.sort(drawn[name].reshape(-1)) - low) / (high - low)
        assert np.abs(below - (np.arange(N) + 0.5) / N).max() < bound, name
    normal = (drawn["normal"] - 1) / 3
    assert abs(normal.mean()) < 5 / np.sqrt(N)
    assert abs(normal.std() - 1) < 5 / np.sqrt(2 * N)
    within = [(np.abs(normal) < deviations).mean() for deviations in (1, 2, 3)]
    np.testing.assert_allclose(within, [0.6827, 0.9545, 0.9973], atol=5 * 0.5 / np.sqrt(N))
    np.testing.assert_allclose(drawn["bernoulli"].mean(), 0.3, atol=5 * 0.5 / np.sqrt(N))
    for name in ("logits", "probs"):
        shares = np.stack([np.bincount(row.astype(int), minlength=4) / N for row in drawn[name]])
        np.testing.assert_allclose(shares, PROBABILITIES, atol=5 * 0.5 / np.sqrt(N), err_msg=name)
    assert not (drawn["probs"][1] == 1).any()  # its probability is 0
    assert abs(np.corrcoef(drawn["no seed"], drawn["no seed again"])[0, 1]) < 5 / np.sqrt(N)


def test_a_generator_goes_on_and_starts_again_with_the_model(model: Model) -> None:
    """A seed's sequence goes on from one prediction to the next, and is the same for each model that is loaded."""
    once, other = load(model.package, threads=1), load(model.package, threads=1)
    first, second = ([dict(zip(DRAWS, m.predict({"x": X}).values(), strict=True)) for _ in "ab"] for m in (once, other))
    random = [name for name in DRAWS if name not in ("one point", "never", "always", "vector")]
    for name in random:
        assert (first[0][name] != first[1][name]).any(), name
        np.testing.assert_array_equal(first[0][name], second[0][name], err_msg=name)
        np.testing.assert_array_equal(first[1][name], second[1][name], err_msg=name)
    np.testing.assert_array_equal(first[0]["uniform"], first[0]["same seed"])
    assert (first[0]["no seed"] != first[0]["no seed again"]).any()


def test_samples_of_a_batch_share_nothing(tmp_path: Path) -> None:
    """Noise of a constant shape, added to each sample: drawn once for each of them."""
    noisy = load(from_mil(tmp_path / "m.mlpackage", lambda x: mb.add(x=x, y=mb.random_normal(shape=(1, 4))), (1, 4)))
    assert not noisy.any_batch
    (rows,) = noisy.predict_batch({"x": np.zeros((3, 4), np.float32)}).values()
    assert len(np.unique(rows)) == rows.size


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (lambda x: mb.random_uniform(shape=(2,), low=1.0, high=0.0), "draws from 1 to 0"),
        (lambda x: mb.random_normal(shape=(2,), stddev=-1.0), "standard deviation is -1"),
        (lambda x: mb.random_bernoulli(shape=(2,), prob=1.5), "probability is 1.5"),
    ],
)
def test_what_cannot_be_drawn(tmp_path: Path, draw: Callable[[Any], Any], why: str) -> None:
    package = from_mil(tmp_path / "m.mlpackage", lambda x: [draw(x), mb.relu(x=x)], (1, 4))
    with pytest.raises(PackageError, match=why):
        load(package)


def test_results_typed_as_half(tmp_path: Path) -> None:
    """In Float16 precision nothing drawn below 1 is rounded to it."""
    package = from_mil(
        tmp_path / "m.mlpackage",
        lambda x: mb.cast(x=mb.random_uniform(shape=(1_000_000,), low=HALF(0), high=HALF(1)), dtype="fp32"),
        (1,),
        dtype=types.fp32,
    )
    (values,) = load(package, precision="float16", threads=1).predict({"x": np.zeros(1, np.float32)}).values()
    assert values.max() == np.nextafter(HALF(1), HALF(0))
