"""Makes what is not in the store yet: each step's result is an artifact, so a step that is done is never done again."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from coreml_prune_bench.bench.app_package import save_for_app
from coreml_prune_bench.bench.build.dense import DenseNetwork, dense_network
from coreml_prune_bench.bench.build.last_made import Shared
from coreml_prune_bench.bench.build.manifest import Built, PackageManifest
from coreml_prune_bench.bench.build.own_network import check_own, not_prunable
from coreml_prune_bench.bench.build.pruned import Ingredients, prune_cell, save_pruned
from coreml_prune_bench.bench.build.saving import save_dense, whole
from coreml_prune_bench.bench.build.training import Progress, Trainings, checkpoint_file, remove_checkpoint
from coreml_prune_bench.bench.cells import Cell, Subject
from coreml_prune_bench.bench.sensitivity import measure, sensitivity_key
from coreml_prune_bench.bench.training_images import TrainingImages, bad_images
from coreml_prune_bench.bench.training_options import TrainingOptions
from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.core.keys import key_of
from coreml_prune_bench.data import DataSet
from coreml_prune_bench.models.layers import leave_dense
from coreml_prune_bench.models.pruning.allocation import allocated
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.pruning.sensitivity import LEVELS, SAMPLES
from coreml_prune_bench.models.synthetic_images import SyntheticImages
from coreml_prune_bench.records.sensitivity import Sensitivity
from coreml_prune_bench.records.store import Store


class Builder:
    """Makes packages and keeps them in the store; skip_bad_images: training images that do not decode are left out.

    shared: what builders of one run have in common.

    Raises BenchError where the device that `training` names is not there.
    """

    def __init__(
        self,
        store: Store,
        progress: Progress,
        *,
        skip_bad_images: bool = False,
        training: TrainingOptions = TrainingOptions(),
        shared: Shared | None = None,
    ) -> None:
        self._store = store
        self._shared = shared or Shared()
        self._skip_bad_images = skip_bad_images
        self._trainings = Trainings(training, progress)

    def build(self, cell: Cell) -> Built:
        """The package of a cell, from the store or newly made.

        Raises BenchError for what the user can mend and CellFailedError for a package that is not what was asked.
        """
        folder = self._store.artifact(cell.build_key, lambda empty: self._fill(cell, empty).model_dump())
        remove_checkpoint(folder, cell.build_key)
        return Built(folder / cell.package_name, PackageManifest.model_validate(self._store.manifest(folder)))

    def train(self, subject: Subject) -> None:
        """Keep the dense network of a subject in the store, if it is one that is trained here."""
        self._dense(subject)

    def sensitivity(
        self, subject: Subject, samples: int = SAMPLES, levels: Sequence[float] = LEVELS, *, synthetic: bool = False
    ) -> Sensitivity:
        """What pruning each layer alone does to the dense network, from the store or newly measured.

        synthetic: on such images, not on those of training.
        A measurement that was stopped goes on where it was. Raises BenchError for what the user can mend and
        CellFailedError for a network of theirs that cannot be run on such images.
        """
        key = sensitivity_key(subject, samples, levels, synthetic=synthetic)

        def fill(folder: Path) -> dict[str, Any]:
            model = self._dense(subject).model()
            leave_dense(model, self._stay_dense(Cell(subject, None, 0), model))
            found = measure(
                subject,
                model,
                SyntheticImages(subject.data.image_size) if synthetic else self._training_images(subject.data),
                samples,
                levels,
                device=self._trainings.device,
                unfinished=checkpoint_file(folder, key),
                progress=self._trainings.within("measuring sensitivity"),
            )
            return found.model_dump(mode="json")

        folder = self._store.artifact(key, fill)
        remove_checkpoint(folder, key)
        return Sensitivity.model_validate(self._store.manifest(folder))

    def _fill(self, cell: Cell, folder: Path) -> PackageManifest:
        if cell.app:
            built, told = self.build(cell.without_app), cell.told
            out = folder / cell.package_name
            whole(out, partial(save_for_app, built.path, out, cell.app, {**told, "scope": built.made.scope}))
            return built.made
        dense = self._dense(cell.subject)
        path, model = folder / cell.package_name, dense.model()
        if cell.config is None:
            if cell.subject.network.own:
                check_own(cell.subject.network, model, cell.subject.data)
            save_dense(model, cell.subject.data.image_size, path, cell.package_format)
            return _manifest(dense, {}, "none")
        baseline = cell.dense
        stay_dense = self._stay_dense(baseline, model)
        images = self._images(cell.config, cell.subject.data)

        # Given, not imported by what prunes: the code of an allocation is behind those cells alone that have one.
        def allocate(config: PruningConfig, model: nn.Module) -> PruningConfig:
            found = self.sensitivity(cell.subject, synthetic=config.takes_synthetic)
            return allocated(config, cell.subject.network, model, found.losses())

        made_of = Ingredients(model, images, stay_dense, allocate)
        pruned = self._shared.pruned.get(
            cell.pruned_key, lambda: prune_cell(cell, made_of, folder, self._trainings, self._shared.start)
        )
        save_pruned(cell, pruned, path, cell.package_format.read(self.build(baseline).path))
        scope = f"{pruned.scope}; {_counted(stay_dense)} cannot be pruned" if stay_dense else pruned.scope
        return _manifest(dense, pruned.targets, scope, pruned.devices, images)

    def _dense(self, subject: Subject) -> DenseNetwork:
        return dense_network(subject, self._store, self._trainings, lambda: self._training_images(subject.data))

    def _stay_dense(self, baseline: Cell, model: nn.Module) -> tuple[str, ...]:
        """Layers that cannot be pruned of a network that the user brought, as its dense package shows; else none."""
        subject = baseline.subject
        if subject.network.own is None:
            return ()
        calls = check_own(subject.network, model, subject.data)
        return not_prunable(model, calls, baseline.package_format.read(self.build(baseline).path))

    def _images(self, config: PruningConfig, data: DataSet) -> TrainingImages | SyntheticImages | None:
        """What the algorithm looks at; None where it looks at the weights alone."""
        if config.needs_data:
            return self._training_images(data)
        return SyntheticImages(data.image_size) if config.takes_synthetic else None

    def _training_images(self, data: DataSet) -> TrainingImages:
        if data.train is None:
            raise DataError(f"{data.spec} has no train split: expected train/ beside val/")
        if not self._skip_bad_images:
            return TrainingImages(data, data.train, np.arange(len(data.train)))
        split, checking = data.train, self._trainings.within("checking images")
        # Kept, because finding them takes as long as decoding every image.
        key = key_of({"bad images of": split.fingerprint})
        folder = self._store.artifact(key, lambda empty: {"bad": bad_images(split, checking)})
        bad = self._store.manifest(folder)["bad"]
        return TrainingImages(data, split, np.setdiff1d(np.arange(len(split)), bad))


def _manifest(
    dense: DenseNetwork,
    targets: dict[str, float | None],
    scope: str,
    devices: tuple[str, ...] = (),
    images: TrainingImages | SyntheticImages | None = None,
) -> PackageManifest:
    made = dense.made
    trained_on = made.devices if made else ()
    skipped = made.skipped if made else ()
    return PackageManifest(
        targets=targets,
        scope=scope,
        trained=made is not None,
        train_skipped=tuple(images.skipped) if isinstance(images, TrainingImages) else skipped,
        devices=tuple(dict.fromkeys([*trained_on, *devices])),
        threads=torch.get_num_threads(),
    )


def _counted(layers: tuple[str, ...]) -> str:
    return f"{len(layers)} layer{'s' if len(layers) > 1 else ''}"
