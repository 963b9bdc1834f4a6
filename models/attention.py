"""Attention whose projections are layers that are called, so that they are pruned and found like any others.

torch's MultiheadAttention holds the query's, key's and value's projections as one bare parameter, and uses its output
projection without calling it: a third of a transformer's weights that no pruning algorithm sees.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_STORED = {"in_proj.weight": "in_proj_weight", "in_proj.bias": "in_proj_bias"}
"""A parameter's name here, and in torch's layout, in which state dicts are read and written."""


class Attention(nn.Module):
    """What `source` computes, with its parameters, as linear layers `in_proj` [3 E, E] and `out_proj` [E, E]."""

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        width, biased = source.embed_dim, source.in_proj_bias is not None
        self.num_heads = source.num_heads
        self.dropout = source.dropout
        self.batch_first = source.batch_first
        self.in_proj = nn.Linear(width, 3 * width, bias=biased, device="meta")
        self.out_proj = nn.Linear(width, width, bias=biased, device="meta")
        self.in_proj.weight, self.in_proj.bias = source.in_proj_weight, source.in_proj_bias
        self.out_proj.weight, self.out_proj.bias = source.out_proj.weight, source.out_proj.bias
        self.train(source.training)
        self.register_state_dict_post_hook(_to_stored)
        self.register_load_state_dict_pre_hook(_from_stored)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's, of batches: [N, L, E], or [L, N, E] where not `batch_first`.

        `is_causal` is a hint there, beside a mask that says the same.
        """
        q, k, v = self._projected(query, key, value)  # [N, L, E]
        batch, length, width = q.shape
        q, k, v = (x.unflatten(2, (self.num_heads, width // self.num_heads)).transpose(1, 2) for x in (q, k, v))
        mask = _merged(attn_mask, key_padding_mask, self.num_heads, q.dtype)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(2, 3) / (width // self.num_heads) ** 0.5
            shares = (scores if mask is None else scores + mask).softmax(dim=3)  # [N, heads, L, S]
            shares = functional.dropout(shares, dropout) if dropout else shares
            heads = shares @ v
            weights = shares.mean(dim=1) if average_attn_weights else shares
        else:
            heads = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out_proj(heads.transpose(1, 2).reshape(batch, length, width))
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        alike = query is key and key is value
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        if alike:
            q, k, v = self.in_proj(query).chunk(3, dim=2)
        else:  # each projection takes its own third
            q, k, v = (self.in_proj(x).chunk(3, dim=2)[third] for third, x in enumerate((query, key, value)))
        return q, k, v


def with_callable_projections(model: nn.Module) -> nn.Module:
    """`model`, whose every MultiheadAttention that can be is replaced, in place, by an `Attention`.

    Those with keys or values of another width, or with learnt or zero keys added, stay as they are.
    """
    if _is_replaceable(model):
        return Attention(model)  # type: ignore[arg-type]
    for parent in list(model.modules()):
        if isinstance(parent, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
            continue  # reads its attention's parameters itself
        for name, child in parent.named_children():
            if _is_replaceable(child):
                setattr(parent, name, Attention(child))  # type: ignore[arg-type]
    return model


def _is_replaceable(module: nn.Module) -> bool:
    return (
        type(module) is nn.MultiheadAttention
        and module._qkv_same_embed_dim
        and module.bias_k is None
        and not module.add_zero_attn
    )


def _merged(mask: Tensor | None, padding: Tensor | None, heads: int, dtype: torch.dtype) -> Tensor | None:
    """What is added to the scores, [N or 1, heads or 1, L or 1, S]: torch's masks are True where not to look."""
    if mask is not None:
        mask = _added(mask, dtype)
        mask = mask.unflatten(0, (-1, heads)) if mask.ndim == 3 else mask[None, None]
    if padding is None:
        return mask
    added = _added(padding, dtype)[:, None, None]
    return added if mask is None else mask + added


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask


def _to_stored(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for own, stored in _STORED.items():
        if prefix + own in state:
            state[prefix + stored] = state.pop(prefix + own)


def _from_stored(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for own, stored in _STORED.items():
        if prefix + stored in state:
            state[prefix + own] = state.pop(prefix + stored)
