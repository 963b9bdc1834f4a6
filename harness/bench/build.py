"""From a cell to a saved Core ML package: dense network, pruning, conversion, and a check of what was saved.

Every step's result is an artifact in the store, so a step that is done is never done again.
"""

import errno
import io
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from torch import nn

from coreml_prune_bench.bench.cells import Cell, Subject
from coreml_prune_bench.bench.sensitivity import measure, sensitivity_key
from coreml_prune_bench.bench.training_images import TrainingImages, bad_images
from coreml_prune_bench.bench.training_options import TrainingOptions
from coreml_prune_bench.bench.verify import check_package
from coreml_prune_bench.core.errors import (
    BenchError,
    CellFailedError,
    DataError,
    PackageError,
)
from coreml_prune_bench.core.keys import key_of
from coreml_prune_bench.data import DataSet
from coreml_prune_bench.mlprogram.summary import PackageSummary, read_package
from coreml_prune_bench.models.checkpoints import Checkpoint
from coreml_prune_bench.models.config import MagnitudePrunerConfig, PruningConfig, ReconstructionConfig
from coreml_prune_bench.models.conversion import to_coreml, weight_output
from coreml_prune_bench.models.devices import choose_device
from coreml_prune_bench.models.distributed import ALONE, Team
from coreml_prune_bench.models.layers import leave_dense, prunable_layers
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pruning import PruningJob, magnitude_pruner, prune
from coreml_prune_bench.models.pruning.allocation import allocated
from coreml_prune_bench.models.pruning.sensitivity import LEVELS, SAMPLES
from coreml_prune_bench.models.pruning.task import layer_sparsities
from coreml_prune_bench.models.tracing import observe
from coreml_prune_bench.models.training import Session, train
from coreml_prune_bench.models.weights import (
    StateDict,
    head_classes,
    initial_model,
    load_pretrained,
    untrained_model,
)
from coreml_prune_bench.records.sensitivity import Sensitivity
from coreml_prune_bench.records.store import Store

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
    stay_dense: layers that no config prunes.
    """

    network: str
    config: MagnitudePrunerConfig | None
    trial: int
    members: np.ndarray
    stay_dense: tuple[str, ...] = ()


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
            if subject.network.own:
                _check_own(subject.network, model, subject.data)
            _save(to_coreml(model, subject.data.image_size), path)
            check_package(path, read_package(path), {}, None)
            return _made(dense, {}, "none", dense.skipped)
        baseline = self.build(Cell(subject, None, 0))
        stay_dense = self._leave_dense(subject, model)
        if subject.network.own:
            _refuse_misfits(config, subject.network, model)
        data = self._training_images(subject.data) if config.needs_data else None
        if config.allocation == "sensitivity":
            config = allocated(config, subject.network, model, self.sensitivity(subject).losses())
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
            order = _Order(subject.network.name, config, cell.trial, data.members, stay_dense)
            session = self._session(order, folder, cell.build_key)
            job = replace(job, session=session, progress=self._training_progress(cell.name, "pruning"))
        if isinstance(config, ReconstructionConfig):
            session = Session(self._device, checkpoint=self._checkpoint(folder, cell.build_key))
            job = replace(job, session=session, say=lambda line: self._training.say(f"{cell.name}: {line}"))
        pruned = prune(config, job)
        _save(pruned.package, path)
        check_package(
            path,
            read_package(path),
            pruned.targets,
            read_package(baseline.path),
            patterns=pruned.patterns,
            storage=config.storage,
            bits=config.joint_bits or 16,
        )
        skipped = data.skipped if data else dense.skipped
        scope = f"{pruned.scope}; {_counted(stay_dense)} cannot be pruned" if stay_dense else pruned.scope
        return _made(dense, pruned.targets, scope, skipped, pruned.devices)

    def sensitivity(self, subject: Subject, samples: int = SAMPLES, levels: Sequence[float] = LEVELS) -> Sensitivity:
        """What pruning each layer alone does to the dense network, from the store or newly measured.

        A measurement that was stopped goes on where it was. Raises BenchError for what the user can mend and
        CellFailedError for a network of theirs that cannot be run on such images.
        """
        key = sensitivity_key(subject, samples, levels)

        def fill(folder: Path) -> dict[str, Any]:
            dense = self._dense_network(subject)
            model = initial_model(subject.network, dense.state, len(subject.data.classes))
            self._leave_dense(subject, model)
            found = measure(
                subject,
                model,
                self._training_images(subject.data),
                samples,
                levels,
                unfinished=_checkpoint_file(folder, key),
                progress=self._within("measuring sensitivity"),
            )
            return found.model_dump(mode="json")

        folder = self._store.artifact(key, fill)
        _remove_checkpoint(folder, key)
        return Sensitivity.model_validate(self._store.manifest(folder))

    def _leave_dense(self, subject: Subject, model: nn.Module) -> tuple[str, ...]:
        """Have no algorithm prune what cannot be of a network that the user brought; the names of those layers."""
        if subject.network.own is None:
            return ()
        calls = _check_own(subject.network, model, subject.data)
        stay_dense = _not_prunable(model, calls, read_package(self.build(Cell(subject, None, 0)).path))
        leave_dense(model, stay_dense)
        return stay_dense

    def _dense_network(self, subject: Subject) -> _DenseNetwork:
        """The dense network: pre-trained as it is, or trained from scratch or with a new head."""
        network, classes = subject.network, len(subject.data.classes)
        state = load_pretrained(network, subject.weights_folder) if subject.pretrained else None
        if state is not None and head_classes(network, state) == classes:
            return _DenseNetwork(state, trained=False, skipped=[], devices=[])
        training = subject.training
        if training is None:
            raise BenchError(_no_training(subject.suite, network, state, subject.data))

        def fill(folder: Path) -> dict[str, Any]:
            model = untrained_model(network, classes) if state is None else initial_model(network, state, classes)
            if network.own:
                _check_own(network, model.eval(), subject.data)
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
        """How a training runs whose result goes to the artifact `key` in `folder`."""
        return Session(self._device, self._team, order, self._checkpoint(folder, key))

    def _checkpoint(self, folder: Path, key: str) -> Checkpoint:
        """Beside the artifact `key`, whose folder this is."""
        interval_s = 60 * self._training.checkpoint_minutes
        return Checkpoint(_checkpoint_file(folder, key), key, interval_s, self._training.say)

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
        leave_dense(model, order.stay_dense)
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


def _check_own(network: Network, model: nn.Module, data: DataSet) -> Counter[str]:
    """Run a network that we know nothing of on one image: how often it calls its layers.

    Raises CellFailedError where it does not take such images or does not give a number for each class.
    """
    size, classes = data.image_size, len(data.classes)
    try:
        observation = observe(model, size)
    except Exception as error:  # its code may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CellFailedError(
            f"{network.name} fails on an image [1, 3, {size}, {size}] of {data.spec}: {reason}"
        ) from error
    shape = getattr(observation.output, "shape", None)
    if shape is None or tuple(shape) != (1, classes):
        found = type(observation.output).__name__ if shape is None else list(shape)
        raise CellFailedError(
            f"{network.name}: expected [1, {classes}] of an image, a number for each class, got {found}"
        )
    return observation.calls


def _refuse_misfits(config: PruningConfig, network: Network, model: nn.Module) -> None:
    """Raises CellFailedError where the layers cannot be pruned so, which of such a network nobody knew before."""
    try:
        layer_sparsities(config, network, model)
    except BenchError as error:
        raise CellFailedError(str(error)) from error


def _not_prunable(model: nn.Module, calls: Counter[str], dense: PackageSummary) -> tuple[str, ...]:
    """Layers that are no use to prune: never called as such, or without a weight of their name in the dense package."""

    def is_found(layer: str) -> bool:
        try:
            return dense.weight_of_layer(layer).name == weight_output(layer)
        except PackageError:
            return False

    return tuple(name for name in prunable_layers(model) if not calls[name] or not is_found(name))


def _counted(layers: tuple[str, ...]) -> str:
    return f"{len(layers)} layer{'s' if len(layers) > 1 else ''}"


def _no_training(suite: str, network: Network, state: StateDict | None, data: DataSet) -> str:
    needed = f"suite {suite} needs a [training] table"
    if state is None:
        return f'{needed}: with weights = "none", {network.name} is trained from scratch'
    head = head_classes(network, state)
    return (
        f"{data.spec} has {len(data.classes)} classes, the weights of {network.name} {head}; for a new head, {needed}"
    )
