"""What needs to be known of a network so that it can be trained, pruned and converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING

from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.preprocessing import Preprocessing, Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Own:
    """What is known of a network that the user brings.

    spec: as `--model` and suites have it. sources: the files and packages that it comes from, by name, with what tells
    their versions apart. weights: its own pre-trained ones, and weights_name: what identifies them. recipe: how images
    were prepared for those, where that is known. Neither `spec` nor `sources` needs torch.
    """

    spec: str
    sources: Callable[[], dict[str, str]]
    weights: Callable[[], dict[str, Tensor]]
    weights_name: Callable[[], str]
    recipe: Callable[[], Recipe | None] = lambda: None


@dataclass(frozen=True)
class Network:
    """A network that can be pruned and converted.

    name: the identifier in suites, records and weight file names, such as "mobilenet_v2".
    title: the name in tables.
    build: number of classes -> untrained network in torchvision's layout; takes normalized float32 [N, 3, H, W].
    head: dotted name of the linear layer that makes the output, replaced when the data has other classes; None: found
    by running the network (models/heads.py).
    scope: the layers pruned by default.
    pretrained: torchvision's name of the weights that are downloaded when no folder is given; None if there are none.
    own: for a network that is no part of the project; its weights then come from there.
    """

    name: str
    title: str
    build: Callable[[int], nn.Module]
    head: str | None
    scope: Scope
    pretrained: str | None = None
    own: Own | None = None

    @property
    def spec(self) -> str:
        """As a suite names it."""
        return self.own.spec if self.own else self.name

    def taking(self, preprocessing: Preprocessing) -> Network:
        """The network, made so that it still takes what all do, where it was trained with numbers as this says."""
        from coreml_prune_bench.models.normalization import renormalized

        @wraps(self.build)
        def build(num_classes: int) -> nn.Module:
            return renormalized(self.build(num_classes), preprocessing)

        return replace(self, build=build)

    def sequential(self, model: nn.Module) -> nn.Sequential:
        """`model` as its consecutive stages: `sequential_view` of coreml_prune_bench.models.stages."""
        from coreml_prune_bench.models.stages import sequential_view

        return sequential_view(model, self.name)
