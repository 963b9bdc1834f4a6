"""What torchrun's other processes do: they train what the first one trains, and write nothing."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from coreml_prune_bench.bench.build.training import DENSE_ORDER_SEED, Order, device_called
from coreml_prune_bench.bench.training_images import TrainingImages
from coreml_prune_bench.models.distributed import Team
from coreml_prune_bench.models.layers import leave_dense
from coreml_prune_bench.models.pruning.algorithm import algorithm_of
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.training import Session, train
from coreml_prune_bench.models.weights import untrained_model

if TYPE_CHECKING:
    from coreml_prune_bench.bench.cells import Subject


def take_part(team: Team, subjects: Callable[[], Iterable["Subject"]], device: str) -> None:
    """Train what the first process of the team trains, until it lets the others go. Writes nothing.

    subjects: those of the first process; asked for when there is something to do, so that errors in them are its own.
    """
    known: dict[str, Subject] = {}
    for order in team.orders():
        known = known or {subject.network.name: subject for subject in subjects()}
        _follow(order, known[order.network], Session(device_called(device, team), team))


def _follow(order: Order, subject: "Subject", session: Session) -> None:
    assert subject.data.train is not None, "the first process found training images"
    data = TrainingImages(subject.data, subject.data.train, order.members)
    # Its weights come from the first process.
    size = subject.data.image_size
    model = untrained_model(subject.network, len(subject.data.classes), image_size=size).eval()
    if order.config is not None:
        leave_dense(model, order.stay_dense)
        task = PruningTask(
            network=subject.network,
            model=model,
            image_size=subject.data.image_size,
            data=data,
            trial=order.trial,
            progress=lambda done, total: None,
            session=session,
        )
        algorithm_of(order.config).train_along(order.config, task)
        return
    assert subject.training is not None, "the first process trains this network"
    train(model, data, subject.training, order_seed=DENSE_ORDER_SEED, session=session)
