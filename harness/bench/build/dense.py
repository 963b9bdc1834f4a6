"""The dense network of a subject: pre-trained as it is, or trained from scratch or with another head."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from coreml_prune_bench.bench.build.manifest import NetworkManifest
from coreml_prune_bench.bench.build.own_network import check_own
from coreml_prune_bench.bench.build.training import DENSE_ORDER_SEED, Order, Trainings, remove_checkpoint
from coreml_prune_bench.bench.head_rows import head_rows
from coreml_prune_bench.bench.training_images import TrainingImages
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.state_dicts import StateDict
from coreml_prune_bench.models.training import train
from coreml_prune_bench.models.weights import head_classes, initial_model, load_pretrained, untrained_model

if TYPE_CHECKING:
    from coreml_prune_bench.bench.cells import Subject
    from coreml_prune_bench.data import DataSet
    from coreml_prune_bench.records.store import Store

_WEIGHTS_FILE = "network.pt"


@dataclass(frozen=True)
class DenseNetwork:
    """state: its weights. made: how it was trained; None where it was not trained here.

    rows: of the head of these weights, those of the data's classes; None where it is the data's own.
    """

    subject: "Subject"
    state: StateDict
    made: NetworkManifest | None
    rows: tuple[int, ...] | None = None

    def model(self) -> nn.Module:
        """A new copy of the network, in eval mode."""
        data, network = self.subject.data, self.subject.network
        return initial_model(network, self.state, len(data.classes), rows=self.rows, image_size=data.image_size)


def dense_network(
    subject: "Subject", store: "Store", trainings: Trainings, images: Callable[[], TrainingImages]
) -> DenseNetwork:
    """The dense network, from the store or newly trained on `images`.

    Raises BenchError where it would have to be trained and nothing says how.
    """
    network, classes, size = subject.network, len(subject.data.classes), subject.data.image_size
    state = load_pretrained(network, subject.weights_folder) if subject.pretrained else None
    known = None if state is None else head_classes(network, state, size)
    rows = None if known is None else head_rows(subject.data.classes, known)
    if rows is not None and known != classes:
        trainings.say(f"{network.name}: of its {known:,} classes the data has {classes:,}; its head keeps those")
    training = subject.training
    if state is not None and rows is not None and (training is None or known == classes):
        return DenseNetwork(subject, state, None, rows)
    if training is None:
        raise BenchError(_no_training(subject.suite, network, known, subject.data))

    def fill(folder: Path) -> dict[str, object]:
        if state is None:
            model = untrained_model(network, classes, image_size=size)
        else:
            model = initial_model(network, state, classes, rows=rows, image_size=size)
        if network.own:
            check_own(network, model.eval(), subject.data)
        data = images()
        devices = train(
            model,
            data,
            training,
            order_seed=DENSE_ORDER_SEED,
            session=trainings.session(Order(network.name, None, 0, data.members), folder, subject.dense_key),
            progress=trainings.with_pace(f"{network.name}, dense", "training"),
        )
        buffer = io.BytesIO()  # torch would turn a full disk into an error that does not say so
        torch.save(model.state_dict(), buffer)
        (folder / _WEIGHTS_FILE).write_bytes(buffer.getvalue())
        return NetworkManifest(skipped=tuple(data.skipped), devices=tuple(devices)).model_dump()

    folder = store.artifact(subject.dense_key, fill)
    remove_checkpoint(folder, subject.dense_key)
    trained = torch.load(folder / _WEIGHTS_FILE, weights_only=True)
    return DenseNetwork(subject, trained, NetworkManifest.model_validate(store.manifest(folder)))


def _no_training(suite: str, network: Network, known: int | None, data: "DataSet") -> str:
    """known: the classes that the weights tell apart; None where there are no weights."""
    needed = f"suite {suite} needs a [training] table"
    if known is None:
        return f'{needed}: with weights = "none", {network.name} is trained from scratch'
    return (
        f"{data.spec} has {len(data.classes)} classes, the weights of {network.name} {known}; for a new head, {needed}"
    )
