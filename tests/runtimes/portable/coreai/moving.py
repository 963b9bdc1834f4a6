"""Reductions, sorting, and what moves, picks and repeats elements; branches and loops; sizes that are open."""

import math

import torch
from torch._higher_order_ops import while_loop
from torch.export import Dim

from tests.runtimes.portable.coreai.cases import Try, real, tries, whole

aten = torch.ops.aten
X, WHOLE = real(1, 3, 4), whole(1, 3, 4)

REDUCTIONS: dict[str, list[Try]] = {
    **{
        f"{name}.default": [
            *tries(lambda x, f=function: f(x, -1), X, X.half()),
            *tries(lambda x, f=function: f(x, (1, 2), keepdim=True), X),
            *tries(lambda x, f=function: f(x, ()), X),
            *tries(lambda x, f=function: f(x, 0), X, WHOLE),
        ]
        for name, function in (("amax", torch.amax), ("amin", torch.amin))
    },
    "any.default": tries(lambda x: torch.any(x > 2), X, -X.abs()),
    "any.dim": tries(lambda x: torch.any(x > 1, -1), X) + tries(lambda x: torch.any(x > 1, 1, keepdim=True), X),
    "any.dims": tries(lambda x: torch.any(x > 1, (1, 2)), X) + tries(lambda x: aten.any.dims(x > 1), X),
    "argmax.default": tries(lambda x: x.argmax(-1), X, WHOLE)
    + tries(lambda x: x.argmax(1, keepdim=True), X, torch.ones(1, 3, 4))
    + tries(lambda x: x.argmax(), X),
    "max.default": tries(torch.max, X, WHOLE),
    "max.dim": tries(lambda x: torch.max(x, 1), X, WHOLE) + tries(lambda x: torch.max(x, -1, keepdim=True), X),
    "min.default": tries(torch.min, X, WHOLE),
    "min.dim": tries(lambda x: torch.min(x, 1), X, WHOLE) + tries(lambda x: torch.min(x, -1, keepdim=True), X),
    "mean.default": tries(torch.mean, X),
    "mean.dim": tries(lambda x: x.mean(-1), X, X.half()) + tries(lambda x: x.mean((1, -1), keepdim=True), X),
    "sum.dim_IntList": tries(lambda x: x.sum(-1), X, WHOLE)
    + tries(lambda x: x.sum((1, 2), keepdim=True), X)
    + tries(torch.sum, X)
    + tries(lambda x: (x > 0).sum(-1), X),
    "prod.default": tries(torch.prod, X, WHOLE),
    "prod.dim_int": tries(lambda x: x.prod(1), X, WHOLE) + tries(lambda x: x.prod(-1, keepdim=True), X),
    "cumsum.default": tries(lambda x: x.cumsum(-1), X, WHOLE) + tries(lambda x: x.cumsum(1), X),
    "linalg_vector_norm.default": tries(lambda x: torch.linalg.vector_norm(x, 2, dim=-1), X)
    + tries(lambda x: torch.linalg.vector_norm(x, 1, dim=(1, 2), keepdim=True), X)
    + tries(lambda x: torch.linalg.vector_norm(x, float("inf"), dim=-1), X)
    + tries(lambda x: torch.linalg.vector_norm(x, float("-inf"), dim=-1), X)
    + tries(lambda x: torch.linalg.vector_norm(x, 0, dim=-1), X * (X > 0))
    + tries(lambda x: torch.linalg.vector_norm(x, 3, dim=-1), X),
    "topk.default": tries(lambda x: torch.topk(x, 2), X)
    + tries(lambda x: torch.topk(x, 2, dim=1, largest=False), X)
    + tries(lambda x: torch.sort(x, -1)[0] * 1, X),
}

MOVES: dict[str, list[Try]] = {
    "cat.default": tries(lambda x, y: torch.cat((x, y), 1), (X, real(1, 2, 4)))
    + tries(lambda x: torch.cat((x, x * 2), -1), X)
    + tries(lambda x: torch.cat((x, torch.ones(1, 1, 4)), 1), X)
    + tries(lambda x: torch.cat((x, x), 0), X)
    + tries(lambda x: torch.stack((x, x * 2), 1), X),
    "expand.default": tries(lambda x: x.expand(-1, 3, 5), real(1, 3, 1))
    + tries(lambda x: x.expand(2, 3, 4), X, real(4))
    + tries(lambda x: torch.cat((torch.ones(1, 1, 4).expand(x.shape[0], -1, -1), x), 1), X),
    "flip.default": tries(lambda x: x.flip(-1), X) + tries(lambda x: x.flip((0, 1)), X, real(2, 3)),
    "permute.default": tries(lambda x: x.permute(0, 2, 1), X)
    + tries(lambda x: x.permute(2, 0, 1), X)
    + tries(lambda x: x.transpose(0, 1).reshape(3, 4).t(), X),
    "repeat.default": tries(lambda x: x.repeat(1, 2, 3), X) + tries(lambda x: x.repeat(2, 1, 1, 2), X),
    "tile.default": tries(lambda x: aten.tile.default(x, [2, 1]), X, table=False),
    "view.default": tries(lambda x: x.view(1, 12), X)
    + tries(lambda x: x.view(-1, 4), X)
    + tries(lambda x: x.flatten(1).view(1, 2, 6), X),
    "_unsafe_view.default": tries(lambda x: aten._unsafe_view.default(x, [1, 12]), X, table=False),
    "squeeze.dims": tries(lambda x: x.squeeze(1), real(1, 1, 4)) + tries(lambda x: x.squeeze(), real(1, 1, 4)),
    "unsqueeze.default": tries(lambda x: x.unsqueeze(1), X) + tries(lambda x: x.unsqueeze(-1), X, real(3)),
    "split_with_sizes.default": tries(lambda x: torch.split(x, [1, 2], 1), X)
    + tries(lambda x: torch.chunk(x, 2, -1), X)
    + tries(lambda x: torch.split(x, 3, -1), X),
    "getitem": tries(lambda x: torch.split(x, [1, 2], 1)[1], X),
    "slice.Tensor": tries(lambda x: x[:, 1:], X)
    + tries(lambda x: x[:, :, -3:-1], X)
    + tries(lambda x: x[..., ::2], X)
    + tries(lambda x: x[1:], real(3, 4)),
    "slice_scatter.default": tries(lambda x, y: torch.slice_scatter(x, y, 1, 1, 3), (X, real(1, 2, 4)))
    + tries(lambda x, y: torch.slice_scatter(x, y, 2, 0, 4, 2), (X, real(1, 3, 2))),
    "select.int": tries(lambda x: x[:, 0], X) + tries(lambda x: x[..., -1], X) + tries(lambda x: x[0], X),
    "gather.default": tries(
        lambda x, i: torch.gather(x, 1, i.long()),
        (X, whole(1, 2, 4, low=0, high=3)),
        (X, whole(1, 3, 4, low=0, high=3)),
    )
    + tries(lambda x, i: torch.gather(x, -1, i), (X, whole(1, 3, 2, low=0, high=4, dtype=torch.int64))),
    "index_select.default": tries(lambda x: torch.index_select(x, 1, torch.tensor([2, 0])), X)
    + tries(lambda x, i: torch.index_select(x, -1, i), (X, torch.tensor([3, 3, 1]))),
    "index.Tensor": tries(lambda x: x[:, torch.tensor([2, 0])], X)
    + tries(lambda x, i: x[0, i], (X, torch.tensor([2, 0])))
    + tries(lambda x: x[:, [0, 1], [1, 2]], X)
    + tries(lambda x: x[x > 0], X),
    "index_put.default": tries(lambda x, y: torch.index_put(x, (torch.tensor([0, 2]),), y), (real(3, 4), real(2, 4)))
    + tries(lambda x: torch.index_put(x, (torch.tensor([0, 2]), torch.tensor([1, 1])), torch.tensor(5.0)), real(3, 4))
    + tries(lambda x: torch.index_put(x, (x > 0,), torch.tensor(5.0)), real(3, 4)),
    "scatter.src": tries(
        lambda x, i, s: torch.scatter(x, 1, i.long(), s), (X, torch.tensor([[[2, 0, 1, 2]]]).int(), real(1, 1, 4))
    ),
    "scatter.value": tries(lambda x, i: torch.scatter(x, 1, i, 7.0), (X, torch.tensor([[[2, 0, 1, 2]]]))),
    "scatter.reduce": [
        item
        for kind in ("add", "multiply")
        for item in tries(
            lambda x, i, s, k=kind: torch.scatter(x, 1, i, s, reduce=k),
            (X, torch.tensor([[[2, 0, 1, 2]]]), real(1, 1, 4)),
        )
    ],
    "scatter.value_reduce": tries(
        lambda x, i: torch.scatter(x, 1, i, 2.0, reduce="add"), (X, torch.tensor([[[2, 0, 1, 2]]]))
    ),
    "masked_scatter.default": tries(lambda x, s: torch.masked_scatter(x, x > 0, s), (X, real(1, 3, 4, seed=4))),
    "nonzero.default": tries(lambda x: torch.nonzero(x > 0), X, real(3, 4), WHOLE),
    "nonzero_numpy.default": tries(lambda x: torch.nonzero(x > 0, as_tuple=True), real(3, 4), table=False),
    "_local_scalar_dense.default": tries(lambda x, n: x * n.item(), (X, torch.tensor([3]))),
}


def _while(x: torch.Tensor) -> torch.Tensor:
    return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2), (torch.zeros((), dtype=torch.int32), x))[1]


def _while_by_value(x: torch.Tensor) -> torch.Tensor:
    return while_loop(lambda y: y.sum() < 100, lambda y: (y * 2 + 1,), (x,))[0]


CONTROL: dict[str, list[Try]] = {
    "cond": tries(lambda x: torch.cond(x.sum() > 0, lambda y: y * 2, lambda y: y - 1, (x,)), X.abs(), -X.abs()),
    "while_loop": tries(_while, X) + tries(_while_by_value, X.abs()),
    "_yield": [],
}

_OPEN = ({1: Dim("n", min=4, max=9)},)
_SIX = real(1, 6, 4)
SIZES: dict[str, list[Try]] = {
    "sym_size.int": tries(lambda x: x.reshape(x.shape[0], x.shape[1] * 4), _SIX, dynamic=_OPEN),
    "add": tries(lambda x: torch.cat((x, x.new_ones(1, x.shape[1] + 1, 4)), 1), _SIX, dynamic=_OPEN),
    "sub": tries(lambda x: x[:, : x.shape[1] - 1], _SIX, dynamic=_OPEN),
    "mul": tries(lambda x: x.reshape(1, x.shape[1] * 2, 2), _SIX, dynamic=_OPEN),
    "neg": tries(lambda x: x + torch.arange(0, -x.shape[1], -1).reshape(1, -1, 1), _SIX, dynamic=_OPEN),
    "floordiv": tries(lambda x: x[:, : x.shape[1] // 2], _SIX, dynamic=_OPEN),
    "mod": tries(lambda x: x * (x.shape[1] % 2), _SIX, dynamic=_OPEN),
    "pow": tries(lambda x: x.sum(1) * (x.shape[1] ** 2), _SIX, dynamic=_OPEN),
    "truediv": tries(lambda x: x * (x.shape[1] / 2), _SIX, dynamic=_OPEN),
    "sym_float": tries(lambda x: x * torch.sym_float(x.shape[1]), _SIX, dynamic=_OPEN),
    "sym_min": tries(lambda x: x[:, : torch.sym_min(x.shape[1], 2)], _SIX, dynamic=_OPEN),
    "ceil": tries(lambda x: x * math.ceil(x.shape[1] / 4), _SIX, dynamic=_OPEN),
    "round": tries(lambda x: x * round(x.shape[1] / 2), _SIX, dynamic=_OPEN),
    "trunc": tries(lambda x: x * math.trunc(x.shape[1] / 4), _SIX, dynamic=_OPEN),
}
