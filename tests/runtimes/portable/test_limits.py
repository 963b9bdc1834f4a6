"""What a prediction may take: its values together, states and inputs that nobody gave, time until a signal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.runtimes.portable import load, memory
from coreml_prune_bench.runtimes.portable.engine import renew_pool
from tests.assembly import Writer, assemble
from tests.damage import rewrite
from tests.interrupting import interrupted_after
from tests.runtimes.portable.attempts import Attempts
from tests.runtimes.portable.bombs import BOMBS

X = np.ones(4, np.float32)


@pytest.fixture
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant of 16 MiB in place of 768, for this test's predictions."""
    monkeypatch.setattr(memory, "FREE_BYTES", 16 << 20)
    assert renew_pool(16 << 20)


def filled(path: Path, mebibytes: int) -> Path:
    """The largest element of so many times x[0], which the program has all at once."""

    def write(w: Writer) -> list[str]:
        one = w("slice_by_size", "one", (1,), x="x", begin=np.array([0]), size=np.array([1]))
        many = w("tile", "many", (mebibytes << 18,), x=one, reps=np.array([mebibytes << 18]))
        return [w("reduce_max", "y", (), x=many, axes=np.array([0]), keep_dims=False)]

    return assemble(path, {"x": (4,)}, write)


def test_a_prediction_that_takes_too_much_is_refused_and_the_next_one_runs(small_pool: None, tmp_path: Path) -> None:
    """Also where the pool is full of what earlier predictions have left there, in pieces of other sizes."""
    most = r"a prediction's values take more than 0.02 GiB, the most for a package of this size"
    for mebibytes in (1, 3, 2, 6, 5, 9):
        model = load(filled(tmp_path / f"{mebibytes}.mlpackage", mebibytes), cache=False, threads=1)
        assert model.predict({"x": 7 * X})["y"] == 7
    large = load(filled(tmp_path / "large.mlpackage", 40), cache=False, threads=1)
    for _ in range(2):
        with pytest.raises(PackageError, match=most):
            large.predict({"x": X})
    with pytest.raises(PackageError, match=most):
        load(BOMBS["values that double"](tmp_path / "b.mlpackage"), cache=False, threads=1).predict({"x": X})
    assert model.predict({"x": 3 * X})["y"] == 3


@pytest.mark.slow
def test_a_pool_that_was_full_does_not_free_the_next_package_of_its_limit(tmp_path):
    attempts = Attempts(60.0, 6 << 30)
    try:
        for number, bomb in enumerate(["values that double", *["values that double and are returned"] * 2]):
            attempt = attempts.attempt(BOMBS[bomb](tmp_path / f"{number}.mlpackage"))
            assert "a prediction's values take more than 0.75 GiB" in attempt.outcome
            assert attempt.mebibytes < 3072  # what the one before has left is counted, too
    finally:
        attempts.close()


def test_more_is_given_for_larger_inputs(small_pool: None, tmp_path: Path) -> None:
    """16 MiB are too few for what 2 MiB of inputs make, 16 MiB and 128 for each of theirs are not."""

    def write(w: Writer) -> list[str]:
        row = w("expand_dims", "row", (1, 1 << 18), x="x", axes=np.array([0]))
        many = w("tile", "many", (40, 1 << 18), x=row, reps=np.array([40, 1]))
        return [w("reduce_max", "y", (), x=many, axes=np.arange(2), keep_dims=False)]

    model = load(assemble(tmp_path / "m.mlpackage", {"x": (1 << 18,)}, write), cache=False, threads=1)
    assert model.predict({"x": np.full(1 << 18, 5, np.float32)})["y"] == 5


def test_what_a_package_declares_and_nobody_gives_is_not_made_in_any_size(tmp_path: Path) -> None:
    package = assemble(tmp_path / "m.mlpackage", {"x": (1 << 28,)}, lambda w: [w("relu", "y", (1 << 28,), x="x")])

    def optional(spec: Any) -> None:
        spec.description.input[0].type.isOptional = True

    rewrite(package, optional)
    with pytest.raises(PackageError, match="its default inputs would take 1,024 MiB, more than the 192 MiB"):
        load(package, cache=False).predict({})


def test_a_signal_ends_an_endless_loop(tmp_path: Path) -> None:
    model = load(BOMBS["an endless loop"](tmp_path / "m.mlpackage"), cache=False, threads=1)
    with pytest.raises(KeyboardInterrupt), interrupted_after(0.3):
        model.predict({"x": X})
    # Its condition holds for no x that is large enough.
    assert model.predict({"x": np.full(4, 2e30, np.float32)})["y"] == np.float32(2e30)
