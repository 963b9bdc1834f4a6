"""Batches made ahead: what was asked for, in order, never too many at once, and errors where they happened."""

import threading
import time

import numpy as np
import pytest
import torch

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.models.devices import CPU
from coreml_prune_bench.models.loading import load_ahead


class Numbered:
    """Image i is filled with i; some thread may be slower than others."""

    def __init__(self, bad: int | None = None) -> None:
        self.bad = bad
        self.begun = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return 200

    def images(self, indices, epoch):
        with self._lock:
            self.begun += len(indices)
        if self.bad in indices:
            raise DataError("cannot decode it")
        time.sleep(0.001 * (indices[0] % 3))
        return np.broadcast_to(indices[:, None, None, None] + epoch, (len(indices), 2, 2, 3)).astype(np.uint8)

    def labels(self, indices):
        return indices * 10


def batches(count: int, size: int = 40):
    return [(epoch, np.arange(size)[::-1] + epoch) for epoch in range(count)]


def test_batches_come_in_order_with_their_labels():
    asked = batches(10)
    found = list(load_ahead(Numbered(), asked, CPU))
    assert len(found) == 10
    for (epoch, indices), (images, labels) in zip(asked, found, strict=True):
        assert images.dtype == torch.uint8
        assert images[:, 1, 1, 2].tolist() == (indices + epoch).tolist()
        assert labels.tolist() == (10 * indices).tolist()


def test_only_a_few_batches_are_made_ahead():
    data = Numbered()
    loading = load_ahead(data, batches(100), CPU)
    next(loading)
    time.sleep(0.2)
    assert data.begun <= 5 * 40
    loading.close()
    begun = data.begun
    time.sleep(0.05)
    assert data.begun == begun  # nobody is left who works


def test_an_error_is_raised_where_its_batch_would_have_been():
    loading = load_ahead(Numbered(bad=44), batches(10), CPU)  # 44 is in the batches 5 to 9
    assert len([next(loading) for _ in range(5)]) == 5
    with pytest.raises(DataError, match="cannot decode it"):
        next(loading)
