"""Attention, against torch."""

from pathlib import Path

import coremltools as ct
import torch
from coremltools.converters.mil import Builder as mb
from torch.nn import functional

from tests.runtimes.portable.programs import Drawn, Operations, all_close, run


def test_attention_with_and_without_a_mask(drawn: Drawn, tmp_path: Path) -> None:
    query, key = drawn(2, 3, 4, 8), drawn(2, 3, 5, 8)
    mask = drawn(4, 5)
    operations: Operations = {
        "plain": lambda q, k: mb.scaled_dot_product_attention(query=q, key=k, value=k),
        "of another width": lambda q, k: mb.scaled_dot_product_attention(
            query=q, key=k, value=mb.slice_by_size(x=k, begin=[0, 0, 0, 2], size=[2, 3, 5, 3])
        ),
        "floats": lambda q, k: mb.scaled_dot_product_attention(query=q, key=k, value=k, attn_mask=mask),
        "booleans": lambda q, k: mb.scaled_dot_product_attention(query=q, key=k, value=k, attn_mask=mask[:1] > 0),
    }
    q, k = torch.from_numpy(query), torch.from_numpy(key)
    attend = functional.scaled_dot_product_attention
    references = {
        "plain": attend(q, k, k),
        "of another width": attend(q, k, k[..., 2:5]),
        "floats": attend(q, k, k, torch.from_numpy(mask)),
        "booleans": attend(q, k, k, torch.from_numpy(mask[:1] > 0)),
    }
    results = run(tmp_path, operations, query, key, opset=ct.target.iOS18)
    all_close(results, {name: reference.numpy() for name, reference in references.items()})
