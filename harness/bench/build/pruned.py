"""A dense network, pruned as a config says and made a package that is what was asked for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from coreml_prune_bench.bench.build.saving import whole
from coreml_prune_bench.bench.build.training import Order, Trainings
from coreml_prune_bench.bench.training_images import TrainingImages
from coreml_prune_bench.core.errors import BenchError, CellFailedError
from coreml_prune_bench.models.layers import leave_dense
from coreml_prune_bench.models.loading import Images
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pruning.algorithm import prune
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.pruning.task import Pruned, PruningTask, layer_sparsities

if TYPE_CHECKING:
    from coreml_prune_bench.bench.build.last_made import LastMade
    from coreml_prune_bench.bench.cells import Cell
    from coreml_prune_bench.mlprogram.summary import PackageSummary
    from coreml_prune_bench.models.checkpoints import State


@dataclass(frozen=True)
class Ingredients:
    """What a pruned package is made of, besides its cell.

    model: the dense network, which is changed. images: for algorithms that take them. stay_dense:
    layers that no algorithm prunes. allocate: spells out the sparsities of a config that is allocated by sensitivity.
    """

    model: nn.Module
    images: Images | None
    stay_dense: tuple[str, ...]
    allocate: Callable[[PruningConfig, nn.Module], PruningConfig]


def prune_cell(
    cell: "Cell", made_of: Ingredients, folder: Path, trainings: Trainings, start: "LastMade[State]"
) -> Pruned:
    """The cell's pruned network. folder: in which the artifact `cell.build_key` is being made. start: what the trials
    of a config have in common.


    Raises CellFailedError where it cannot be pruned so.
    """
    config = cell.config
    assert config is not None, "the dense baseline is not pruned"
    leave_dense(made_of.model, made_of.stay_dense)
    if cell.subject.network.own:
        _refuse_misfits(config, cell.subject.network, made_of.model)
    if config.allocation == "sensitivity":
        config = made_of.allocate(config, made_of.model)
    task = _task(cell, config, made_of, folder, trainings)
    return prune(config, replace(task, once=lambda make: start.get(cell.start_key, make)))


def save_pruned(cell: "Cell", pruned: Pruned, path: Path, baseline: "PackageSummary") -> None:
    """Save as a package; its promises hold, or CellFailedError says which one does not."""
    whole(path, lambda: cell.package_format.save_pruned(pruned, path))
    cell.package_format.check(path, pruned, baseline)


def _task(cell: "Cell", config: PruningConfig, made_of: Ingredients, folder: Path, trainings: Trainings) -> PruningTask:
    task = PruningTask(
        network=cell.subject.network,
        model=made_of.model,
        image_size=cell.subject.data.image_size,
        data=made_of.images,
        trial=cell.trial,
        progress=trainings.within("pruning"),
    )
    if "session" not in config.takes:
        return task
    order = None
    if "labels" in config.takes:
        assert isinstance(made_of.images, TrainingImages), "labels are those of training images"
        order = Order(cell.subject.network.name, config, cell.trial, made_of.images.members, made_of.stay_dense)
    return replace(
        task,
        session=trainings.session(order, folder, cell.build_key),
        progress=task.progress if order is None else trainings.with_pace(cell.name, "pruning"),
        say=lambda line: trainings.say(f"{cell.name}: {line}"),
    )


def _refuse_misfits(config: PruningConfig, network: Network, model: nn.Module) -> None:
    """Raises CellFailedError where the layers cannot be pruned so, which of such a network nobody knew before."""
    try:
        layer_sparsities(config, network, model)
    except BenchError as error:
        raise CellFailedError(str(error)) from error
