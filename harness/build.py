"""From a cell to a saved Core ML package: dense network, pruning, conversion, and a check of what was saved.

Every step's result is an artifact in the store, so a step that is done is never done again.
"""

import errno
import io
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
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
from harness.processes import TrainingOptions
from harness.store import Store
from harness.training_images import TrainingImages, bad_images
from harness.verify import check_package
from models.checkpoints import Checkpoint
from models.config import MagnitudePrunerConfig
from models.conversion import to_coreml
from models.devices import choose_device
from models.distributed import ALONE, Team
from models.network import Network
from models.pruning import PruningJob, magnitude_pruner, prune
from models.training import Session, train
from models.weights import StateDict, initial_model, load_pretrained, untrained_model

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""

_WEIGHTS_FILE = "network.pt"
_PACE_INTERVAL_S = 600


@dataclass(frozen=True)
class Built:
    """A saved package. targets: the sparsity asked of each pruned layer. trained: whether we trained its network.

    train_skipped: ids of training images that were left out as bad. devices: those that trained, in words.
    """

    path: Path
    targets: dict[str, float | None]
    scope: str
    trained: bool
    train_skipped: tuple[str, ...]
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _DenseNetwork:
    """state: its weights. trained: whether they were trained here. skipped, devices: images left out, devices used."""

    state: StateDict
    trained: bool
    skipped: list[str]
    devices: list[str]


@dataclass(frozen=True)
class _Order:
    """What the first process has the others train with it.

    config: that of the fine-tuning; None for the dense network. members: positions of the training images that stay.
    """

    network: str
    config: MagnitudePrunerConfig | None
    trial: int
    members: np.ndarray


class Builder:
    """Makes packages and keeps them in the store; skip_bad_images: training images that do not decode are left out.

    Raises BenchError where the device that `training` names is not there.
    """

    def __init__(
        self,
        store: Store,
        progress: Progress,
        *,
        skip_bad_images: bool = False,
        training: TrainingOptions = TrainingOptions(),
    ) -> None:
        self._store = store
        self._progress = progress
        self._skip_bad_images = skip_bad_images
        self._training = training
        self._team = training.team or ALONE
        self._device = _device(training.device, self._team)

    def build(self, cell: Cell) -> Built:
        """The package of a cell, from the store or newly made.

        Raises BenchError for what the user can mend and CellFailedError for a package that is not what was asked.
        """
        folder = self._store.artifact(cell.build_key, lambda empty: self._fill(cell, empty))
        _remove_checkpoint(folder, cell.build_key)
        made = self._store.manifest(folder)
        return Built(
            path=folder / _package_name(cell),
            targets=made["targets"],
            scope=made["scope"],
            trained=made["trained"],
            train_skipped=tuple(made["train_skipped"]),
            devices=tuple(made["devices"]),
        )

    def _fill(self, cell: Cell, folder: Path) -> dict[str, Any]:
        subject, config = cell.subject, cell.config
        path = folder / _package_name(cell)
        dense = self._dense_network(subject)
        model = initial_model(subject.network, dense.state, len(subject.data.classes))
        if config is None:
            _save(to_coreml(model, subject.data.image_size), path)
            check_package(path, read_package(path), {}, None)
            return _made(dense, {}, "none", dense.skipped)
        baseline = self.build(Cell(subject, None, 0))
        data = self._training_images(subject.data) if config.needs_data else None
        job = PruningJob(
            network=subject.network,
            model=model,
            image_size=subject.data.image_size,
            data=data,
            trial=cell.trial,
            progress=self._within("pruning"),
        )
        if isinstance(config, MagnitudePrunerConfig):
            assert data is not None
            order = _Order(subject.network.name, config, cell.trial, data.members)
            session = self._session(order, folder, cell.build_key)
            job = replace(job, session=session, progress=self._training_progress(cell.name, "pruning"))
        pruned = prune(config, job)
        _save(pruned.package, path)
        check_package(path, read_package(path), pruned.targets, read_package(baseline.path))
        skipped = data.skipped if data else dense.skipped
        return _made(dense, pruned.targets, pruned.scope, skipped, pruned.devices)

    def _dense_network(self, subject: Subject) -> _DenseNetwork:
        """The dense network: pre-trained as it is, or trained from scratch or with a new head."""
        network, classes = subject.network, len(subject.data.classes)
        state = load_pretrained(network, subject.weights_folder) if subject.pretrained else None
        if state is not None and state[f"{network.head}.weight"].shape[0] == classes:
            return _DenseNetwork(state, trained=False, skipped=[], devices=[])
        training = subject.training
        if training is None:
            raise BenchError(_no_training(subject.suite, network, state, subject.data))

        def fill(folder: Path) -> dict[str, Any]:
            model = untrained_model(network, classes) if state is None else initial_model(network, state, classes)
            data = self._training_images(subject.data)
            devices = train(
                model,
                data,
                training,
                order_seed=0,
                session=self._session(_Order(network.name, None, 0, data.members), folder, subject.dense_key),
                progress=self._training_progress(f"{network.name}, dense", "training"),
            )
            buffer = io.BytesIO()  # torch would turn a full disk into an error that does not say so
            torch.save(model.state_dict(), buffer)
            (folder / _WEIGHTS_FILE).write_bytes(buffer.getvalue())
            return {"skipped": data.skipped, "devices": devices}

        folder = self._store.artifact(subject.dense_key, fill)
        _remove_checkpoint(folder, subject.dense_key)
        trained = torch.load(folder / _WEIGHTS_FILE, weights_only=True)
        made = self._store.manifest(folder)
        return _DenseNetwork(trained, trained=True, skipped=made["skipped"], devices=made["devices"])

    def _session(self, order: _Order, folder: Path, key: str) -> Session:
        """How a training runs whose result goes to the artifact `key` in `folder`; its checkpoint lies beside that."""
        interval_s = 60 * self._training.checkpoint_minutes
        checkpoint = Checkpoint(_checkpoint_file(folder, key), key, interval_s, self._training.say)
        return Session(self._device, self._team, order, checkpoint)

    def _within(self, description: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(description, done, total)

    def _training_progress(self, name: str, description: str) -> Callable[[int, int], None]:
        """`_within`, and now and then a line with the pace: bars are for terminals alone."""
        pace = _Pace()

        def progress(done: int, total: int) -> None:
            self._progress(description, done, total)
            if line := pace.line(done, total):
                self._training.say(f"{name}: {description}: {line}")

        return progress

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


def take_part(team: Team, subjects: Callable[[], Iterable[Subject]], device: str) -> None:
    """Train what the first process of the team trains, until it lets the others go. Writes nothing.

    subjects: those of the first process; asked for when there is something to do, so that errors in them are its own.
    """
    known: dict[str, Subject] = {}
    for order in team.orders():
        known = known or {subject.network.name: subject for subject in subjects()}
        _follow(order, known[order.network], Session(_device(device, team), team))


def _follow(order: _Order, subject: Subject, session: Session) -> None:
    assert subject.data.train is not None, "the first process found training images"
    data = TrainingImages(subject.data, subject.data.train, order.members)
    # Its weights come from the first process.
    model = untrained_model(subject.network, len(subject.data.classes)).eval()
    if order.config is not None:
        job = PruningJob(
            network=subject.network,
            model=model,
            image_size=subject.data.image_size,
            data=data,
            trial=order.trial,
            progress=lambda done, total: None,
            session=session,
        )
        magnitude_pruner.fine_tune(order.config, job)
        return
    assert subject.training is not None, "the first process trains this network"
    train(model, data, subject.training, order_seed=0, session=session)


class _Pace:
    """How fast a training is, in a line every few minutes."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._told_s = 0.0

    def line(self, done: int, total: int) -> str | None:
        """What to say after `done` of `total` steps; None where it is not time for it."""
        now_s = time.monotonic()
        if self._first is None:
            self._first, self._told_s = (done, now_s), now_s
            return None
        if now_s - self._told_s < _PACE_INTERVAL_S:
            return None
        self._told_s = now_s
        first, since_s = self._first  # not step 1 of a training that was resumed
        per_s = (done - first) / (now_s - since_s)
        left = timedelta(seconds=round((total - done) / per_s))
        return f"step {done:,} of {total:,}, {per_s:.2f} steps/s, {left} left"


def _device(name: str, team: Team) -> torch.device:
    return choose_device(name, local_rank=team.local_rank, processes=team.count)


def _checkpoint_file(folder: Path, key: str) -> Path:
    """Beside the artifact `key`, whose folder this is, or the one in which it is being made."""
    return folder.with_name(f".{key[:16]}.checkpoint")


def _remove_checkpoint(folder: Path, key: str) -> None:
    """Of an artifact that is complete; and what a killed run may have left of writing one."""
    file = _checkpoint_file(folder, key)
    for path in file.parent.glob(f"{file.name}*"):
        path.unlink()


def _made(
    dense: _DenseNetwork,
    targets: Mapping[str, float | None],
    scope: str,
    skipped: list[str],
    devices: tuple[str, ...] = (),
) -> dict[str, Any]:
    """What the manifest of a package says."""
    return {
        "targets": targets,
        "scope": scope,
        "trained": dense.trained,
        "train_skipped": skipped,
        "devices": list(dict.fromkeys([*dense.devices, *devices])),
    }


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
