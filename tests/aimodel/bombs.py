"""`.aimodel` packages that ask for far more than they hold. Needs coreai-core."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.aimodel.packages import from_text, graph, resources

_X = "tensor<4xf32>"
_UNARY = f"({_X}) -> {_X}"


def _summed(values: list[str], each: str) -> str:
    """A graph that adds to its input what follows from it and from each of `values`, so that none can be left out.

    each: operations that make %s{k} of tensor<1xf32> from %v{k}, the value, and %m, the input as [1, 4].
    """
    lines = [
        f"""%v{k} = {value}
        {each.format(k=k)}
        %y{k + 1} = coreai.decomposable.broadcasting_add %y{k}, %s{k} : ({_X}, tensor<1xf32>) -> {_X}"""
        for k, value in enumerate(values)
    ]
    first = f"""%axes = coreai.constant dense<[1]> : tensor<1xsi32>
        %one = coreai.constant dense<[1]> : tensor<1xui32>
        %row = coreai.constant dense<[1, 4]> : tensor<2xui32>
        %m = coreai.reshape %x, %row : ({_X}, tensor<2xui32>) -> tensor<1x4xf32>
        %y0 = coreai.relu %x : {_UNARY}"""
    return graph("\n".join([first, *lines, f"%y = coreai.relu %y{len(values)} : {_UNARY}"]))


def _of_a_product(columns: int) -> str:
    return f"""%p{{k}} = coreai.decomposable.broadcasting_batch_matmul %m, %v{{k}} :
          (tensor<1x4xf32>, tensor<4x{columns}xf32>) -> tensor<1x{columns}xf32>
        %r{{k}} = coreai.reduce_sum %p{{k}}, %axes : (tensor<1x{columns}xf32>, tensor<1xsi32>) -> tensor<1x1xf32>
        %s{{k}} = coreai.reshape %r{{k}}, %one : (tensor<1x1xf32>, tensor<1xui32>) -> tensor<1xf32>"""


def splat(path: Path) -> Path:
    """10^12 elements that are one number."""
    n = 10**12 // 4
    return from_text(path, _summed([f"coreai.constant dense<1.0> : tensor<4x{n}xf32>"], _of_a_product(n)))


def splats(path: Path) -> Path:
    """Some of 64 MiB, each of them another number."""
    n = 4 << 20
    values = [f"coreai.constant dense<{k}.5> : tensor<4x{n}xf32>" for k in range(12)]
    return from_text(path, _summed(values, _of_a_product(n)))


def shared(path: Path) -> Path:
    """A constant of a megabyte that many operations name."""
    n = 65_536
    values = [f"coreai.constant dense_resource<r> : tensor<4x{n}xf32>"] * 1_000
    module = f"module {{ {_summed(values, _of_a_product(n))} }}"
    return from_text(path, module + resources(r=np.random.default_rng(0).normal(size=4 * n).astype(np.float32)))


def doubling(path: Path, leaf: str = graph(f"%y = coreai.relu %x : {_UNARY}", "leaf", kind="private")) -> Path:
    """Graphs that each invoke the next one twice: 2^40 operations."""
    levels = 39
    graphs = [leaf, graph(f"%y = coreai.invoke @leaf(%x) : {_UNARY}", f"g{levels}", kind="private")]
    for level in range(levels):
        body = f"%a = coreai.invoke @g{level + 1}(%x) : {_UNARY}\n%y = coreai.invoke @g{level + 1}(%a) : {_UNARY}"
        graphs.append(graph(body, f"g{level}", kind="private") if level else graph(body))
    return from_text(path, "\n".join(graphs))


def doubling_of_nothing(path: Path) -> Path:
    """As many invocations of a graph that does nothing."""
    leaf = (
        f"coreai.graph private @leaf(%x: {_X}) -> ({_X}) attributes {{__coreai_pure__}} {{ coreai.output %x : {_X} }}\n"
    )
    return doubling(path, leaf)


def itself(path: Path) -> Path:
    """A graph that invokes itself."""
    loop = graph(f"%y = coreai.invoke @again(%x) : {_UNARY}", "again", kind="private")
    return from_text(path, loop + graph(f"%y = coreai.invoke @again(%x) : {_UNARY}"))


def nested(path: Path, depth: int = 200) -> Path:
    """Branches in each other."""
    inner = f"%v{depth} = coreai.relu %x : {_UNARY}"
    for level in reversed(range(depth)):
        inner = f"""%v{level} = coreai.if %c {{ {inner}
            coreai.yield %v{level + 1} : {_X} }} else {{ coreai.yield %x : {_X} }} : tensor<i1> -> {_X}"""
    body = f"%c = coreai.constant dense<true> : tensor<i1>\n{inner}\n%y = coreai.relu %v0 : {_UNARY}"
    return from_text(path, graph(body))


def one_name(path: Path, count: int = 2_000) -> Path:
    """Constants that the metadata gives one name."""
    values = [f"coreai.constant dense<{k}.5> : tensor<1xf32>" for k in range(count)]
    each = "%s{k} = coreai.tanh %v{k} : tensor<1xf32> -> tensor<1xf32>"
    return from_text(path, _summed(values, each), {"weights": {str(k): "w" for k in range(count)}})


BOMBS: dict[str, Callable[[Path], Path]] = {
    "aimodel: a splat of 10^12 elements": splat,
    "aimodel: 12 splats of 64 MiB": splats,
    "aimodel: a constant that 1,000 operations name": shared,
    "aimodel: graphs that invoke each other 2^40 times": doubling,
    "aimodel: graphs of nothing that invoke each other 2^40 times": doubling_of_nothing,
    "aimodel: a graph that invokes itself": itself,
    "aimodel: branches in each other": nested,
    "aimodel: 2,000 constants of one name": one_name,
}
