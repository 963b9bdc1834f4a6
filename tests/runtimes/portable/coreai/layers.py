"""Layers of networks: convolutions, pools, norms, products of matrices, attention, resizing, borders."""

import torch
from torch import nn

from tests.runtimes.portable.coreai.cases import Try, real, tries, whole

_nn = torch.nn.functional
aten = torch.ops.aten
IMAGE = real(1, 4, 9, 8)


def _conv(layer: nn.Module, x: torch.Tensor = IMAGE, **options: object) -> list[Try]:
    torch.manual_seed(0)
    return tries(layer.to(x.dtype).eval(), x, **options)


CONVOLUTIONS: dict[str, list[Try]] = {
    "convolution.default": [
        *_conv(nn.Conv2d(4, 6, 3)),
        *_conv(nn.Conv2d(4, 6, 3).half(), IMAGE.half(), tolerance=2e-2),
        *_conv(nn.Conv2d(4, 6, 1, bias=False)),
        *_conv(nn.Conv2d(4, 6, 3, stride=2, padding=1)),
        *_conv(nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(2, 1))),
        *_conv(nn.Conv2d(4, 8, 3, groups=2, padding=1)),
        *_conv(nn.Conv2d(4, 4, 3, groups=4, padding="same")),
        *_conv(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")),
        *_conv(nn.Conv2d(4, 4, 3, padding=1, padding_mode="replicate")),
        *_conv(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")),
        *_conv(nn.Conv1d(4, 6, 3, padding=2, stride=2), real(1, 4, 9)),
        *_conv(nn.Conv1d(4, 6, 3, dilation=2, groups=2), real(1, 4, 9)),
        *_conv(nn.Conv3d(2, 4, (2, 3, 3), padding=1, stride=2), real(1, 2, 5, 6, 7)),
        *_conv(nn.Conv3d(2, 4, 2, dilation=2, groups=2, bias=False), real(1, 2, 5, 6, 7)),
        *_conv(nn.ConvTranspose2d(4, 6, 3)),
        *_conv(nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1)),
        *_conv(nn.ConvTranspose2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0), dilation=(2, 1), groups=2, bias=False)),
        *_conv(nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1), real(1, 4, 9)),
        *_conv(nn.ConvTranspose3d(2, 3, 2, stride=2), real(1, 2, 3, 3, 3)),
        *tries(lambda x, w: _nn.conv2d(x, w), (IMAGE, real(3, 4, 2, 2))),
    ],
}

POOLS: dict[str, list[Try]] = {
    "_adaptive_avg_pool2d.default": [
        *tries(lambda x: _nn.adaptive_avg_pool2d(x, 1), IMAGE),
        *tries(lambda x: _nn.adaptive_avg_pool2d(x, (3, 2)), IMAGE),
        *tries(lambda x: _nn.adaptive_avg_pool2d(x, (5, 3)), IMAGE),
    ],
    "avg_pool2d.default": [
        *tries(lambda x: _nn.avg_pool2d(x, 2), IMAGE, IMAGE.half(), real(2, 4, 6, 6), real(3, 6, 6)),
        *tries(lambda x: _nn.avg_pool2d(x, 3, 2, 1), IMAGE),
        *tries(lambda x: _nn.avg_pool2d(x, 3, 2, 1, count_include_pad=False), IMAGE),
        *tries(lambda x: _nn.avg_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGE, real(1, 2, 10, 12)),
        *tries(lambda x: _nn.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), real(1, 2, 10, 12)),
        *tries(lambda x: _nn.avg_pool2d(x, (2, 3), (1, 2), divisor_override=5), IMAGE),
    ],
    "avg_pool3d.default": [
        *tries(lambda x: _nn.avg_pool3d(x, 2), real(1, 2, 4, 6, 5)),
        *tries(lambda x: _nn.avg_pool3d(x, 3, 2, 1, count_include_pad=False), real(1, 2, 5, 6, 7)),
        *tries(lambda x: _nn.avg_pool3d(x, 3, 2, 1, ceil_mode=True), real(1, 2, 6, 6, 6)),
        *tries(lambda x: _nn.avg_pool3d(x, 2, divisor_override=3), real(1, 2, 4, 6, 5)),
    ],
    "max_pool2d_with_indices.default": [
        *tries(lambda x: _nn.max_pool2d(x, 2), IMAGE, IMAGE.half(), real(2, 4, 6, 6)),
        *tries(lambda x: _nn.max_pool2d(x, 3, 2, 1), IMAGE),
        *tries(lambda x: _nn.max_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGE, real(1, 2, 10, 12), -real(1, 2, 10, 12)),
        *tries(lambda x: _nn.max_pool2d(x, (2, 3), (1, 2), dilation=(2, 1)), IMAGE),
        *tries(lambda x: _nn.max_pool2d(x, 3, 2, 1, dilation=2, ceil_mode=True), real(1, 2, 10, 12)),
        *tries(lambda x: _nn.max_pool2d(x, 3, 2, ceil_mode=True), real(1, 2, 10, 12)),
    ],
}


def _settled(norm: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for name, value in [*norm.named_parameters(), *norm.named_buffers()]:
        if value.dtype.is_floating_point:
            value.data = torch.rand(value.shape) + 0.5 if "var" in name else torch.randn(value.shape)
    return norm.eval()


NORMS: dict[str, list[Try]] = {
    "_native_batch_norm_legit_no_training.default": [
        *tries(_settled(nn.BatchNorm2d(4)), IMAGE),
        *tries(_settled(nn.BatchNorm1d(4)), real(1, 4, 5), real(1, 4)),
        *tries(_settled(nn.BatchNorm3d(2, affine=False)), real(1, 2, 3, 4, 5)),
        *tries(_settled(nn.BatchNorm2d(4)).half(), IMAGE.half(), tolerance=2e-2),
    ],
    "instance_norm.default": [
        *tries(_settled(nn.InstanceNorm2d(4, affine=True)), IMAGE),
        *tries(_settled(nn.InstanceNorm1d(4)), real(1, 4, 6)),
        *tries(_settled(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)), IMAGE),
    ],
    "native_group_norm.default": [
        *tries(_settled(nn.GroupNorm(2, 4)), IMAGE, real(1, 4, 5)),
        *tries(_settled(nn.GroupNorm(4, 4, affine=False)), IMAGE),
    ],
    "native_layer_norm.default": [
        *tries(_settled(nn.LayerNorm(8)), IMAGE, real(1, 5, 8)),
        *tries(_settled(nn.LayerNorm((9, 8), elementwise_affine=False)), IMAGE),
        *tries(_settled(nn.LayerNorm(8)).half(), real(1, 5, 8).half(), tolerance=2e-2),
    ],
}

PRODUCTS: dict[str, list[Try]] = {
    "addmm.default": [
        *tries(nn.Linear(4, 6), real(1, 4), real(3, 4)),
        *tries(lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2.0), (real(2, 3), real(2, 4), real(4, 3))),
    ],
    "mm.default": [*tries(torch.mm, (real(2, 4), real(4, 3))), *tries(nn.Linear(4, 6, bias=False), real(1, 4))],
    "bmm.default": [
        *tries(torch.bmm, (real(2, 3, 4), real(2, 4, 5))),
        *tries(torch.matmul, (real(1, 2, 3, 4), real(1, 2, 4, 5)), (real(1, 3, 4), real(4, 5)), (real(1, 4), real(4))),
        *tries(nn.Linear(4, 6), real(1, 3, 4), real(1, 2, 3, 4)),
    ],
    "embedding.default": tries(nn.Embedding(9, 3), whole(1, 5, low=0), whole(1, 2, 3, low=0, dtype=torch.int64)),
    "scaled_dot_product_attention.default": [
        *tries(_nn.scaled_dot_product_attention, (real(1, 2, 3, 4), real(1, 2, 5, 4), real(1, 2, 5, 4, seed=9))),
        *tries(
            lambda q, k, v: _nn.scaled_dot_product_attention(q, k, v, is_causal=True),
            (real(1, 2, 3, 4), real(1, 2, 3, 4, seed=8), real(1, 2, 3, 4, seed=9)),
        ),
        *tries(
            lambda q, k, v, m: _nn.scaled_dot_product_attention(q, k, v, m, scale=0.3),
            (real(1, 2, 3, 4), real(1, 2, 5, 4), real(1, 2, 5, 4, seed=9), real(1, 1, 3, 5)),
        ),
        *tries(
            lambda q, k, v: _nn.scaled_dot_product_attention(q, k, v, enable_gqa=True),
            (real(1, 4, 3, 4), real(1, 2, 5, 4), real(1, 2, 5, 4, seed=9)),
        ),
        *tries(nn.MultiheadAttention(8, 2, batch_first=True).eval(), [real(1, 5, 8, seed=s) for s in (1, 2, 3)]),
    ],
    "_softmax.default": tries(lambda x: torch.softmax(x, -1), real(1, 3, 4), real(1, 3, 4).half())
    + tries(lambda x: torch.softmax(x, 1), real(1, 3, 4))
    + tries(lambda x: torch.softmax(x, 0), real(3, 4), real(1, 4)),
    "_log_softmax.default": tries(lambda x: torch.log_softmax(x, -1), real(1, 3, 4))
    + tries(lambda x: torch.log_softmax(x, 1), real(1, 3, 4)),
}

SAMPLING: dict[str, list[Try]] = {
    "upsample_bilinear2d.vec": [
        *tries(lambda x: _nn.interpolate(x, scale_factor=2, mode="bilinear"), IMAGE),
        *tries(lambda x: _nn.interpolate(x, size=(5, 13), mode="bilinear"), IMAGE),
        *tries(lambda x: _nn.interpolate(x, size=(5, 13), mode="bilinear", align_corners=True), IMAGE),
        *tries(lambda x: _nn.interpolate(x, scale_factor=(1.5, 0.7), mode="bilinear"), IMAGE),
    ],
    "upsample_nearest2d.vec": [
        *tries(lambda x: _nn.interpolate(x, scale_factor=2), IMAGE),
        *tries(lambda x: _nn.interpolate(x, size=(5, 13)), IMAGE),
        *tries(lambda x: _nn.interpolate(x, scale_factor=(1.5, 3)), IMAGE),
    ],
    "pixel_shuffle.default": tries(lambda x: torch.pixel_shuffle(x, 2), IMAGE, real(2, 8, 3, 3)),
    "constant_pad_nd.default": [
        *tries(lambda x: _nn.pad(x, (1, 2)), real(1, 3, 4)),
        *tries(lambda x: _nn.pad(x, (1, 0, 2, 3), value=1.5), IMAGE),
        *tries(lambda x: _nn.pad(x, (-1, 2)), real(1, 3, 4)),
        *tries(lambda x: _nn.pad(x, (1, 1, 1, 0, 1, 2)), real(1, 3, 4)),
    ],
    **{
        f"{kind}_pad{rank}d.default": tries(
            lambda x, pads=(1, 2) * rank, mode=mode: _nn.pad(x, pads, mode=mode), real(1, 3, *[4] * rank)
        )
        for kind, mode in (("reflection", "reflect"), ("replication", "replicate"))
        for rank in (1, 2, 3)
    },
}
