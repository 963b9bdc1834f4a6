"""Batches made ahead of the training that takes them, so that an accelerator need not wait for decoding.

In threads, because PIL gives the interpreter's lock away while it decodes and resizes: of 3.7 ms for a view of a
full-size ImageNet file Python holds it for 0.25 ms at most, which leaves room for some fifteen cores. Processes were no
faster, and would ask of every data set that it can be pickled.
"""

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from coreml_prune_bench.models.processors import processors

_BATCHES_AHEAD = 3
_CHUNK = 16
"""Images that a thread makes in a row, so that the cost of handing over is hidden even behind tiny ones."""
_MOST_THREADS = 16


class Images(Protocol):
    """Images to calibrate with. Threads ask for several parts at once."""

    def __len__(self) -> int: ...

    def images(self, indices: np.ndarray, epoch: int | None) -> np.ndarray:
        """uint8 [n, H, W, 3]; augmented as in that epoch, or as in evaluation where epoch is None."""
        ...


@runtime_checkable
class LabelledImages(Images, Protocol):
    """Images to train on."""

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """int64 [n]."""
        ...


def load_ahead(
    data: LabelledImages, batches: Iterable[tuple[int, np.ndarray]], device: torch.device
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """For each (epoch, indices): uint8 [n, H, W, 3] and labels int64 [n], on `device`.

    To be closed where it is not read to its end. Raises what `data` raises.
    """
    ahead: deque[Future[tuple[Tensor, Tensor]]] = deque()
    makers = ThreadPoolExecutor(min(_MOST_THREADS, _processors()), "load")
    collector = ThreadPoolExecutor(1, "collect")  # a pool of its own: it waits for the makers
    try:
        for epoch, indices in batches:
            chunks = np.array_split(indices, -(-len(indices) // _CHUNK))
            parts = [makers.submit(data.images, chunk, epoch) for chunk in chunks]
            ahead.append(collector.submit(_collect, parts, data, indices, device))
            if len(ahead) > _BATCHES_AHEAD:
                yield _on_device(ahead.popleft(), device)
        while ahead:
            yield _on_device(ahead.popleft(), device)
    finally:
        makers.shutdown(cancel_futures=True)
        collector.shutdown(cancel_futures=True)


def _processors() -> int:
    """Those for this process: torchrun starts several on one machine."""
    return max(1, len(processors()) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _collect(
    parts: list[Future[np.ndarray]], data: LabelledImages, indices: np.ndarray, device: torch.device
) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(np.concatenate([part.result() for part in parts]))
    labels = torch.from_numpy(data.labels(indices))
    # From pinned memory a GPU copies by itself, while the processor goes on.
    return (images.pin_memory(), labels.pin_memory()) if device.type == "cuda" else (images, labels)


def _on_device(batch: Future[tuple[Tensor, Tensor]], device: torch.device) -> tuple[Tensor, Tensor]:
    images, labels = batch.result()
    # Only from pinned memory: Apple's GPU would read what is released meanwhile (pytorch issue 139550).
    ahead = device.type == "cuda"
    return images.to(device, non_blocking=ahead), labels.to(device, non_blocking=ahead)
