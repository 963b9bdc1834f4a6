"""A package to damage, ways to damage it, and how it must be refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from coremltools.proto import Model_pb2

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.runtimes.portable import load

SPECIFICATION = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


class TwoLayers(torch.nn.Module):
    """A layer whose weight stands in weight.bin, and one whose weight is small enough for the program itself."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = torch.nn.Linear(8, 4), torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.small(torch.relu(self.large(x)))


def rewrite(package: Path, change: Callable[[Any], None]) -> None:
    spec = Model_pb2.Model.FromString((package / SPECIFICATION).read_bytes())
    change(spec)
    (package / SPECIFICATION).write_bytes(spec.SerializeToString())


def block(spec: Any) -> Any:
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def find(spec: Any, type_: str) -> Any:
    return next(operation for operation in block(spec).operations if operation.type == type_)


def named(spec: Any, output: str) -> Any:
    return next(o for o in block(spec).operations if o.outputs and o.outputs[0].name == output)


def declare(type_: Any, *shape: int) -> None:
    del type_.tensorType.dimensions[:]
    for size in shape:
        type_.tensorType.dimensions.add().constant.size = size
    type_.tensorType.rank = len(shape)


def refusal(package: Path) -> str:
    """The message with which it is refused; it names the package."""
    with pytest.raises(PackageError) as raised:
        load(package, cache=False)
    message = str(raised.value)
    assert str(package) in message
    return message
