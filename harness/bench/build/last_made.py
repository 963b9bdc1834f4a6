"""What cells that are built one after the other share, so that it is made once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from coreml_prune_bench.models.checkpoints import State
    from coreml_prune_bench.models.pruning.task import Pruned

_Made = TypeVar("_Made")


class LastMade(Generic[_Made]):
    """The last of its kind: a run's cells stand so that those that share one follow each other."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._made: _Made | None = None

    def get(self, key: str, make: Callable[[], _Made]) -> _Made:
        """That of `key`, made now if it was not the last."""
        if self._made is None or self._key != key:
            self._made = None  # not two at a time
            self._made, self._key = make(), key
        return self._made


@dataclass(frozen=True)
class Shared:
    """pruned: of the packages of several formats. start: of the trials of a config, which begin with the same zeros."""

    pruned: "LastMade[Pruned]" = field(default_factory=LastMade)
    start: "LastMade[State]" = field(default_factory=LastMade)
