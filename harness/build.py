"""From a cell to a saved Core ML package: dense network, pruning, conversion, and a check of what was saved.

Every step's result is an artifact in the store, so a step that is done is never done again.
"""

import errno
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch

from harness.cells import Cell, Subject
from harness.data import DataSet
from harness.errors import BenchError, DataError
from harness.keys import key_of
from harness.package import read_package
from harness.store import Store
from harness.training_images import TrainingImages, bad_images
from harness.verify import check_package
from models.conversion import to_coreml
from models.network import Network
from models.pruning import PruningJob, prune
from models.training import train
from models.weights import StateDict, initial_model, load_pretrained, untrained_model

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""

_WEIGHTS_FILE = "network.pt"


@dataclass(frozen=True)
class Built:
    """A saved package. targets: the sparsity asked of each pruned layer. trained: whether we trained its network.

    train_skipped: ids of training images that were left out as bad.
    """

    path: Path
    targets: dict[str, float | None]
    scope: str
    trained: bool
    train_skipped: tuple[str, ...]


@dataclass(frozen=True)
class _DenseNetwork:
    """state: its weights. trained: whether they were trained here. skipped: training images left out then."""

    state: StateDict
    trained: bool
    skipped: list[str]


class Builder:
    """Makes packages and keeps them in the store; skip_bad_images: training images that do not decode are left out."""

    def __init__(self, store: Store, progress: Progress, *, skip_bad_images: bool = False) -> None:
        self._store = store
        self._progress = progress
        self._skip_bad_images = skip_bad_images

    def build(self, cell: Cell) -> Built:
        """The package of a cell, from the store or newly made.

        Raises BenchError for what the user can mend and CellFailedError for a package that is not what was asked.
        """
        folder = self._store.artifact(cell.build_key, lambda empty: self._fill(cell, empty))
        made = self._store.manifest(folder)
        return Built(
            path=folder / _package_name(cell),
            targets=made["targets"],
            scope=made["scope"],
            trained=made["trained"],
            train_skipped=tuple(made["train_skipped"]),
        )

    def _fill(self, cell: Cell, folder: Path) -> dict[str, Any]:
        subject, config = cell.subject, cell.config
        path = folder / _package_name(cell)
        dense = self._dense_network(subject)
        model = initial_model(subject.network, dense.state, len(subject.data.classes))
        if config is None:
            _save(to_coreml(model, subject.data.image_size), path)
            check_package(path, read_package(path), {}, None)
            return {"targets": {}, "scope": "none", "trained": dense.trained, "train_skipped": dense.skipped}
        baseline = self.build(Cell(subject, None, 0))
        data = self._training_images(subject.data) if config.needs_data else None
        pruned = prune(
            config,
            PruningJob(
                network=subject.network,
                model=model,
                image_size=subject.data.image_size,
                data=data,
                trial=cell.trial,
                progress=self._within("pruning"),
            ),
        )
        _save(pruned.package, path)
        check_package(path, read_package(path), pruned.targets, read_package(baseline.path))
        skipped = data.skipped if data else dense.skipped
        return {"targets": pruned.targets, "scope": pruned.scope, "trained": dense.trained, "train_skipped": skipped}

    def _dense_network(self, subject: Subject) -> "_DenseNetwork":
        """The dense network: pre-trained as it is, or trained from scratch or with a new head."""
        network, classes = subject.network, len(subject.data.classes)
        state = load_pretrained(network, subject.weights_folder) if subject.pretrained else None
        if state is not None and state[f"{network.head}.weight"].shape[0] == classes:
            return _DenseNetwork(state, trained=False, skipped=[])
        training = subject.training
        if training is None:
            raise BenchError(_no_training(subject.suite, network, state, subject.data))

        def fill(folder: Path) -> dict[str, Any]:
            model = untrained_model(network, classes) if state is None else initial_model(network, state, classes)
            data = self._training_images(subject.data)
            train(
                model,
                data,
                training,
                order_seed=0,
                progress=self._within("training"),
            )
            buffer = io.BytesIO()  # torch would turn a full disk into an error that does not say so
            torch.save(model.state_dict(), buffer)
            (folder / _WEIGHTS_FILE).write_bytes(buffer.getvalue())
            return {"skipped": data.skipped}

        folder = self._store.artifact(subject.dense_key, fill)
        trained = torch.load(folder / _WEIGHTS_FILE, weights_only=True)
        return _DenseNetwork(trained, trained=True, skipped=self._store.manifest(folder)["skipped"])

    def _within(self, description: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(description, done, total)

    def _training_images(self, data: DataSet) -> TrainingImages:
        if data.train is None:
            raise DataError(f"{data.spec} has no train split: expected train/ beside val/")
        if not self._skip_bad_images:
            return TrainingImages(data, data.train, np.arange(len(data.train)))
        split = data.train
        # Kept, because finding them takes as long as decoding every image.
        key = key_of({"bad images of": split.fingerprint})
        folder = self._store.artifact(key, lambda empty: {"bad": bad_images(split, self._within("checking images"))})
        bad = self._store.manifest(folder)["bad"]
        return TrainingImages(data, split, np.setdiff1d(np.arange(len(split)), bad))


def _save(package: ct.models.MLModel, path: Path) -> None:
    try:
        package.save(str(path))
    except shutil.Error as error:
        # Saving copies a tree, and that error hides what stopped the copies.
        if f"[Errno {errno.ENOSPC}]" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _package_name(cell: Cell) -> str:
    return f"{cell.subject.network.name}.mlpackage"


def _no_training(suite: str, network: Network, state: StateDict | None, data: DataSet) -> str:
    needed = f"suite {suite} needs a [training] table"
    if state is None:
        return f'{needed}: with weights = "none", {network.name} is trained from scratch'
    head = state[f"{network.head}.weight"].shape[0]
    return (
        f"{data.spec} has {len(data.classes)} classes, the weights of {network.name} {head}; for a new head, {needed}"
    )
