"""Operations that choose by position or by score."""

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from tests.runtimes.portable.programs import Case, check, outputs

X = np.random.default_rng(0).normal(0, 2, (2, 3, 4)).astype(np.float32)

INDICES = np.array([[0, 2, 1], [-1, 3, 4]], np.float32)
LENGTHS = np.array([2, 0, 1, 2], np.float32)
ONE_HOT: dict[str, Case] = {
    "integers": (lambda i: mb.one_hot(indices=i, one_hot_vector_size=4), lambda i: i[..., np.newaxis] == np.arange(4)),
    "values": (
        lambda i: mb.one_hot(indices=i, one_hot_vector_size=4, axis=1, on_value=2.5, off_value=-0.5),
        lambda i: np.where(i[:, np.newaxis] == np.arange(4)[:, np.newaxis], 2.5, -0.5),
    ),
    "flags": (
        lambda i: mb.cast(
            x=mb.one_hot(indices=i, one_hot_vector_size=4, axis=0, on_value=False, off_value=True), dtype="int32"
        ),
        lambda i: i != np.arange(4)[:, np.newaxis, np.newaxis],
    ),
}


def test_one_hot_is_off_everywhere_for_an_index_outside(tmp_path: Path) -> None:
    cases = {
        name: (lambda x, case=case: case(mb.cast(x=x, dtype="int32")), expected)
        for name, (case, expected) in ONE_HOT.items()
    }
    check(tmp_path / "m.mlpackage", cases, INDICES)


def reversed_sequences(x: np.ndarray, lengths: np.ndarray, along: int, batch: int) -> np.ndarray:
    rows = np.moveaxis(x, (batch, along), (0, 1)).copy()
    for row, length in zip(rows, lengths.astype(int), strict=True):
        row[:length] = row[:length][::-1].copy()
    return np.moveaxis(rows, (0, 1), (batch, along))


def test_reverse_sequence(tmp_path: Path) -> None:
    axes = [(0, 1), (1, 0), (2, 1), (-1, 0), (0, 2)]

    def build(x: Any, lengths: Any) -> list[Any]:
        integers = mb.cast(x=lengths, dtype="int32")
        return [
            mb.reverse_sequence(
                x=x,
                lengths=mb.slice_by_size(x=integers, begin=[0], size=[X.shape[batch]]),
                seq_axis=along,
                batch_axis=batch,
            )
            for along, batch in axes
        ]

    got = outputs(tmp_path / "m.mlpackage", build, {"x": X, "lengths": LENGTHS})
    for (along, batch), result in zip(axes, got, strict=True):
        want = reversed_sequences(X, LENGTHS[: X.shape[batch]], along, batch)
        np.testing.assert_array_equal(result, want)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Of two boxes (x, y, width, height) with (x, y) in the middle: the intersection's share of the union."""
    low, high = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2), np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    common = np.prod(np.maximum(high - low, 0))
    return float(common / (a[2:].prod() + b[2:].prod() - common))


def suppressed(
    boxes: np.ndarray, scores: np.ndarray, iou: float, least: float | None, most: int, *, by_class: bool
) -> list[int]:
    """Which of the boxes [B, 4] with scores [B, K] are left."""
    best, classes = scores.max(1), scores.argmax(1)
    kept: list[int] = []
    for i in np.argsort(-best, kind="stable"):
        rivals = [j for j in kept if not by_class or classes[i] == classes[j]]
        if (least is None or best[i] >= least) and all(overlap(boxes[i], boxes[j]) <= iou for j in rivals):
            kept.append(int(i))
    return (kept or [int(best.argmax())])[:most]


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize(("least", "most"), [(None, 30), (None, 5), (-1.0, 30), (0.4, 5), (2.0, 3)])
def test_non_maximum_suppression(least: float | None, most: int, by_class: bool, tmp_path: Path) -> None:
    """iOS17 has boxes in the last dimension, and no score threshold."""
    rng = np.random.default_rng(most)
    boxes = np.concatenate([rng.uniform(0, 10, (2, 20, 2)), rng.uniform(2, 5, (2, 20, 2))], 2).astype(np.float32)
    scores = rng.uniform(0, 1, (2, 20, 3)).astype(np.float32)
    turned = least is None
    opset = ct.target.iOS17 if turned else ct.target.iOS16
    threshold = {} if turned else {"score_threshold": least}

    def build(boxes: Any, scores: Any) -> Any:
        return mb.non_maximum_suppression(
            boxes=boxes, scores=scores, iou_threshold=0.2, max_boxes=most, per_class_suppression=by_class, **threshold
        )

    def as_taken(rows: np.ndarray) -> np.ndarray:
        return rows.transpose(0, 2, 1) if turned else rows

    inputs = {"boxes": as_taken(boxes), "scores": as_taken(scores)}
    got_boxes, got_scores, got_indices, *got_counts = outputs(tmp_path / "m.mlpackage", build, inputs, opset=opset)
    for n in range(2):
        kept = suppressed(boxes[n], scores[n], 0.2, least, most, by_class=by_class)
        nothing = most - len(kept)
        np.testing.assert_array_equal(got_indices[n], kept + [-1] * nothing)
        np.testing.assert_array_equal(as_taken(got_boxes)[n], np.pad(boxes[n, kept], [(0, nothing), (0, 0)]))
        np.testing.assert_array_equal(as_taken(got_scores)[n], np.pad(scores[n, kept], [(0, nothing), (0, 0)]))
        if not turned:
            assert got_counts[0][n] == len(kept)
