"""Which weights of a layer go, and what the others become: SparseGPT's rule, as Core ML Tools has it.

Columns are taken in groups. Of a group those weights go whose loss, the square of the weight over that of the inverse
Hessian's root, is the least; then column by column what was taken away is made up for by the columns behind it. What a
column does to those behind it is added up for a few columns at once, so that a weight is read and written seldom.
"""

import torch
from coremltools.optimize.torch.layerwise_compression import ModuleSparseGPTConfig
from torch import Tensor

_COLUMNS_AT_ONCE = 16
_SMALL = 256
"""Rows of a triangle that is inverted as a whole."""


def operate(weight: Tensor, hessian: Tensor, config: ModuleSparseGPTConfig) -> Tensor:
    """The pruned weight [rows, columns], Float32. Inputs that are zero on every image lose all their weights.

    hessian: [columns, columns]; it is worked in. config: without quantization.
    """
    unseen = hessian.diagonal() == 0
    hessian.diagonal()[unseen] = 1
    columns = weight.float().t().contiguous()  # [columns, rows]: a column is read at a time
    columns[unseen] = 0
    hessian.diagonal().add_(config.hessian_dampening * hessian.diagonal().mean())
    root = _inverse_root(hessian)
    for begin in range(0, len(columns), config.processing_group_size):
        end = min(begin + config.processing_group_size, len(columns))
        errors = _operate_on_group(columns[begin:end], root[begin:end, begin:end], config)
        columns[end:].addmm_(root[begin:end, end:].t(), errors, alpha=-1)
    return columns.t()


def _operate_on_group(columns: Tensor, root: Tensor, config: ModuleSparseGPTConfig) -> Tensor:
    """Prune [columns, rows] in place; returns what columns behind the group have to make up for, of the same shape."""
    n_of_m = tuple(config.n_m_ratio) if config.n_m_ratio is not None else None
    gone = torch.zeros_like(columns, dtype=torch.bool)
    if n_of_m is None:
        losses = _losses(columns, root)
        gone = losses <= losses.flatten().kthvalue(int(losses.numel() * config.target_sparsity) + 1).values
    errors = torch.zeros_like(columns)
    step = _COLUMNS_AT_ONCE if n_of_m is None else n_of_m[1] * -(-_COLUMNS_AT_ONCE // n_of_m[1])
    scale = root.diagonal().tolist()
    for begin in range(0, len(columns), step):
        end = min(begin + step, len(columns))
        for column in range(begin, end):
            if n_of_m is not None and column % n_of_m[1] == 0:
                among = slice(column, column + n_of_m[1])
                losses = _losses(columns[among], root[among, among])
                gone[among].scatter_(0, losses.topk(n_of_m[0], dim=0, largest=False).indices, True)
            torch.mul(columns[column], gone[column], out=errors[column])
            errors[column].div_(scale[column])
            columns[column].masked_fill_(gone[column], 0)
            columns[column + 1 : end].addr_(root[column, column + 1 : end], errors[column], alpha=-1)
        columns[end:].addmm_(root[begin:end, end:].t(), errors[begin:end], alpha=-1)
    return errors


def _losses(columns: Tensor, root: Tensor) -> Tensor:
    return columns.square() / root.diagonal().square().unsqueeze(1)


def _inverse_root(hessian: Tensor) -> Tensor:
    """The upper triangle whose transpose times itself is the inverse of `hessian`."""
    lower = torch.linalg.cholesky(hessian.flip(0, 1))
    return _inverted(lower.flip(0, 1))  # flipped, it is an upper triangle that times its transpose is the Hessian


def _inverted(upper: Tensor) -> Tensor:
    """The inverse of an upper triangle, by halves: a third of the work of solving for every column."""
    size = len(upper)
    if size <= _SMALL:
        return torch.linalg.solve_triangular(upper, torch.eye(size, device=upper.device), upper=True)
    half = size // 2
    inverse = torch.zeros_like(upper)
    inverse[:half, :half] = _inverted(upper[:half, :half])
    inverse[half:, half:] = _inverted(upper[half:, half:])
    inverse[:half, half:] = -inverse[:half, :half] @ upper[:half, half:] @ inverse[half:, half:]
    return inverse
