"""Operations on a batch: what its samples are one by one, or one after the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
import torchvision
from coremltools.converters.mil import Builder as mb
from torch import nn

from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_mil, from_torch
from tests.runtimes.portable.programs import Drawn, Operations, all_close, convert


def test_a_batch_is_what_its_samples_are_one_by_one(drawn: Drawn, tmp_path: Path) -> None:
    weight, mask = drawn(4, 2, 3, 3), drawn(6, 6)

    def build(x: Any) -> Any:
        return (
            mb.conv_transpose(x=x, weight=weight, strides=[2, 2], pad_type="same"),
            mb.l2_pool(x=x, kernel_sizes=[2, 2], pad_type="valid"),
            mb.avg_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1] * 4, ceil_mode=True),
            mb.layer_norm(x=x, axes=[1]),
            mb.layer_norm(x=x, axes=[1, 2, 3]),
            mb.instance_norm(x=x),
            mb.l2_norm(x=x),
            mb.local_response_norm(x=x, size=4),
            mb.softplus_parametric(x=x, alpha=mask[0, :4], beta=mask[1, :4]),
            mb.einsum(values=(x, mb.transpose(x=x, perm=[0, 3, 2, 1])), equation="nchw,nwhu->nchu"),
            mb.scaled_dot_product_attention(query=x, key=x, value=x, attn_mask=mask),
            mb.matmul(x=x, y=x, transpose_y=True),
            mb.floor_div(x=x, y=mask),
        )

    path = from_mil(tmp_path / "m.mlpackage", build, (1, 4, 6, 6), opset=ct.target.iOS18)
    model = load(path, threads=1)
    assert model.any_batch
    x = drawn(3, 4, 6, 6)
    batch = model.predict_batch({"x": x})
    for i in range(3):
        single = model.predict({"x": x[i : i + 1]})
        all_close({name: values[i : i + 1] for name, values in batch.items()}, single)


@pytest.mark.parametrize(
    "build",
    [
        lambda x: mb.layer_norm(x=x, axes=[0, 1, 2]),
        lambda x: mb.l2_norm(x=x),
        lambda x: mb.einsum(values=(x, x), equation="chw,whu->chu"),
        lambda x: mb.conv(x=np.ones((1, 3, 4), np.float32), weight=x),
    ],
)
def test_what_mixes_samples_runs_one_by_one(build: Callable[..., Any], tmp_path: Path) -> None:
    shape = (1, 3, 1)
    model = load(from_mil(tmp_path / "m.mlpackage", build, shape), threads=1)
    assert not model.any_batch


def test_a_batch_keeps_samples_apart_whatever_becomes_of_the_leading_dimension(
    draw: np.random.Generator, tmp_path: Path
) -> None:
    """Everything here works along a leading dimension that is no longer the batch of 1."""
    shape = (1, 4, 6, 8)
    constant = draw.normal(0, 1, (2, 6, 8)).astype(np.float32)

    def build(x: Any) -> list[Any]:
        rows = mb.squeeze(x=x, axes=[0])  # [4, 6, 8]
        first, second = mb.split(x=rows, num_splits=2, axis=0)
        blocks = mb.reshape(x=x, shape=[2, 2, 6, 8])
        cases = [
            mb.transpose(x=rows, perm=[2, 0, 1]),
            mb.reshape(x=rows, shape=[3, 8, 8]),
            mb.reshape_like(
                x=rows, ref_tensors=(mb.reshape(x=rows, shape=[12, 16]),), begins=(0,), ends=(2,), end_masks=(False,)
            ),
            mb.flatten2d(x=rows, axis=2),
            mb.expand_dims(x=rows, axes=[0]),
            mb.concat(values=[first, rows], axis=0),
            mb.concat(values=[constant, second, first], axis=0),
            mb.concat(values=[first, constant], axis=1),
            mb.concat(values=[first, second], axis=0, interleave=True),
            mb.concat(values=[first, second], axis=1, interleave=True),
            mb.stack(values=[first, second, constant], axis=0),
            mb.stack(values=[first, second], axis=1),
            mb.slice_by_index(
                x=rows,
                begin=[-1, 0, 0],
                end=[0, 5, 0],
                stride=[-2, 1, 1],
                begin_mask=[False, False, True],
                end_mask=[True, False, True],
            ),
            mb.slice_by_index(x=rows, begin=[2, 0, 1], end=[0, 5, 0], squeeze_mask=[True, False, True]),
            mb.slice_by_index(x=blocks, begin=[1, 0, 0, 0], end=[0, 2, 6, 8], squeeze_mask=[True, False, False, False]),
            mb.slice_by_size(x=rows, begin=[1, 2, 0], size=[2, -1, 8]),
            mb.tile(x=rows, reps=[3, 1, 2]),
            mb.pad(x=rows, pad=[1, 2, 0, 0, 0, 1], mode="reflect"),
            mb.reverse(x=rows, axes=[0, 2]),
            mb.sliding_windows(x=rows, axis=0, size=3),
            mb.space_to_batch(x=blocks, block_shape=[3, 2], paddings=[[0, 0], [1, 1]]),
            mb.batch_to_space(x=blocks, block_shape=[1, 2], crops=[[0, 0], [1, 0]]),
            mb.pixel_shuffle(x=mb.reshape(x=x, shape=[2, 4, 3, 8]), upscale_factor=2),
            mb.add(x=blocks, y=constant[:1]),
            mb.softmax(x=rows, axis=1),
            mb.matmul(x=rows, y=rows, transpose_y=True),
            mb.mul(x=rows, y=mb.cast(x=mb.reduce_sum(x=mb.shape(x=blocks), axes=[0], keep_dims=False), dtype="fp32")),
            mb.topk(x=rows, k=2, axis=-1)[0],
            mb.cumsum(x=rows, axis=1),
        ]
        return [mb.reshape(x=case, shape=[1, -1]) for case in cases]

    from_mil(tmp_path / "m.mlpackage", build, shape)
    model = load(tmp_path / "m.mlpackage", threads=1)
    assert model.any_batch
    samples = draw.normal(0, 1, (3, *shape[1:])).astype(np.float32)
    together = model.predict_batch({"x": samples})
    for n, sample in enumerate(samples):
        alone = model.predict({"x": sample[np.newaxis]})
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][n : n + 1], value, rtol=1e-6, atol=1e-6, err_msg=name)


class Windows(nn.Module):
    """What Swin and MaxViT do: attention inside windows, which take turns with the batch; and a class token, as ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.linear = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.roll((1, 2), (2, 3)).reshape(1, 8, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1)
        x = x.reshape(4, 16, 8).transpose(0, 1)  # [tokens, windows, channels]
        x = torch.cat([self.token.expand(1, 4, 8), x])
        query, key, value = self.linear(x).reshape(17, 4 * 2, 12).transpose(0, 1).split(4, 2)  # [windows * heads, ...]
        x = (query @ key.transpose(1, 2)).softmax(-1) @ value
        x = x.transpose(0, 1).reshape(17, 4, 8).transpose(0, 1)
        return x[:, 0].reshape(1, 4, 8).mean(1) - x[:, 1:].reshape(1, 64, 8).amax(1)


def test_windows_that_take_turns_with_the_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Windows().eval()
    from_torch(tmp_path / "m.mlpackage", network, (1, 8, 8, 8))
    model = load(tmp_path / "m.mlpackage", threads=1)
    assert model.any_batch
    x = torch.randn(3, 1, 8, 8, 8)
    want = torch.cat([network(sample) for sample in x]).detach().numpy()
    np.testing.assert_allclose(model.predict_batch({"x": x[:, 0].numpy()})["y"], want, rtol=1e-4, atol=1e-5)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vision_transformer": lambda: torchvision.models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=4
    ),
    "swin": lambda: torchvision.models.SwinTransformer(
        patch_size=[2, 2], embed_dim=8, depths=[2], num_heads=[2], window_size=[4, 4], num_classes=4
    ),
    "max_vit": lambda: torchvision.models.MaxVit(
        input_size=(16, 16),
        stem_channels=4,
        partition_size=2,
        block_channels=[8],
        block_layers=[1],
        head_dim=4,
        stochastic_depth_prob=0.0,
        num_classes=4,
    ),
    "shufflenet": lambda: torchvision.models.ShuffleNetV2([1, 1, 1], [4, 8, 16, 32, 8], num_classes=4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_reshape_across_the_batch_run_any_batch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)  # some are zero at first, which would show nothing
    size = 32 if name == "shufflenet" else 16
    exported = torch.export.export(network, (torch.rand(1, 3, size, size),)).run_decompositions({})
    package = ct.convert(
        exported,
        outputs=[ct.TensorType("y")],
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
    )
    package.save(str(tmp_path / "m.mlpackage"))
    model = load(tmp_path / "m.mlpackage", threads=1)
    assert model.any_batch
    images = torch.randn(3, 3, size, size)
    got = model.predict_batch({model.input_names[0]: images.numpy()})["y"]
    np.testing.assert_allclose(got, network(images).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_batch_is_its_samples(tmp_path: Path) -> None:
    def nearest_sample(x: Any, y: Any) -> Any:
        return mb.resample(
            x=x,
            coordinates=y,
            sampling_mode="nearest",
            padding_mode="symmetric",
            padding_value=0.0,
            coordinates_mode="normalized_zero_to_one",
            align_corners=True,
        )

    def bilinear_sample(x: Any, y: Any) -> Any:
        return mb.resample(
            x=x,
            coordinates=y,
            sampling_mode="bilinear",
            padding_mode="constant",
            padding_value=2.0,
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=False,
        )

    linear_sizes = {"target_size_height": 7, "target_size_width": 3}
    operations: Operations = {
        "upsample_nearest_neighbor": lambda x, y: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2),
        "resize_nearest_neighbor": lambda x, y: mb.resize_nearest_neighbor(x=x, **linear_sizes),
        "upsample_bilinear": lambda x, y: mb.upsample_bilinear(x=x, scale_factor_width=2, align_corners=False),
        "resize_bilinear": lambda x, y: mb.resize_bilinear(x=x, **linear_sizes),
        "offset": lambda x, y: mb.resize_bilinear(x=x, sampling_mode="OFFSET_CORNERS", **linear_sizes),
        "resize": lambda x, y: mb.resize(x=x, shape=[0, 9], resized_dims=np.uint32(2)),
        "resample": nearest_sample,
        "grid_sample": bilinear_sample,
    }
    model = convert(tmp_path, operations, (1, 3, 5, 4), (1, 2, 2, 2))
    assert model.any_batch
    rng = np.random.default_rng(3)
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 3, 5, 4), (3, 2, 2, 2)))
    batch = model.predict_batch({"x": x, "y": y})
    for i in range(3):
        for name, value in model.predict({"x": x[i : i + 1], "y": y[i : i + 1]}).items():
            np.testing.assert_allclose(batch[name][i], value[0], rtol=1e-6, err_msg=name)


def test_crops_of_a_batch_are_taken_one_by_one(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 2, 2]], np.float32)
    model = convert(tmp_path, {"": lambda x: mb.crop_resize(x=x, boxes=boxes)}, (1, 3, 5, 4))
    assert not model.any_batch
