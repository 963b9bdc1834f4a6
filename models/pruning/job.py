"""What a pruning algorithm is given, what it returns, and how it reads Core ML Tools' own configs."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeVar

import coremltools as ct
from cattrs import BaseValidationError, transform_error
from torch import nn

from harness.errors import BenchError
from models.config import PruningConfig, Scope
from models.conversion import encode_zeros, to_coreml
from models.loading import LabelledImages
from models.network import Network
from models.training import Progress, Session

Targets = dict[str, float | None]
"""The sparsity asked of each pruned layer, by its dotted name; None where only a threshold was given."""

_Own = TypeVar("_Own")


@dataclass(frozen=True)
class PruningJob:
    """One network to prune once.

    model: the dense network in eval mode; the algorithm may change it.
    data: training images, for the algorithms whose `needs_data` is true.
    trial: changes the order of the training data and nothing else.
    session: how a fine-tuning runs.
    """

    network: Network
    model: nn.Module
    image_size: int
    data: LabelledImages | None
    trial: int
    progress: Progress
    session: Session = field(default_factory=Session)

    def training_data(self) -> LabelledImages:
        assert self.data is not None, "an algorithm whose needs_data is true is given data"
        return self.data

    def scope(self, config: PruningConfig) -> Scope:
        return config.scope or self.network.scope


@dataclass(frozen=True)
class Pruned:
    """A pruned Core ML model and what was promised of it: targets by layer, and the pruned scope in words.

    devices: those it was fine-tuned on, in words.
    """

    package: "ct.models.MLModel"
    targets: Targets
    scope: str
    devices: tuple[str, ...] = ()


def converted(job: PruningJob, targets: Targets, scope: str, devices: tuple[str, ...] = ()) -> Pruned:
    """The end of every algorithm that prunes in torch: convert, then store the zeros of the pruned layers as zeros."""
    return Pruned(encode_zeros(to_coreml(job.model, job.image_size), list(targets)), targets, scope, devices)


def scope_of_own_config(targets: Iterable[str]) -> str:
    """The scope in words where a Core ML Tools config chose the layers."""
    return f"{len(list(targets))} layers by Core ML Tools config"


def read_own_config(config: PruningConfig, read: Callable[[dict[str, Any]], _Own]) -> _Own:
    """Build the Core ML Tools config object that `config.coremltools` describes, with `read`.

    Raises BenchError of one line for what Core ML Tools rejects in its own ways.
    """
    try:
        return read(deepcopy(config.coremltools or {}))  # a copy: its readers change what they read
    except BaseValidationError as error:
        raise BenchError(f"{config.name}: not a Core ML Tools config: {'; '.join(transform_error(error))}") from error
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as error:
        raise BenchError(f"{config.name}: not a Core ML Tools config: {error}") from error
