"""Between channels or the batch and space.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS15 and iOS16, tensor_transformation.py.
"""

from coreml_prune_bench.runtimes.portable.batch import only
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation
from coreml_prune_bench.runtimes.portable.samples import View, separable, view

ROWWISE = only("x", rank=4)


@operation("depth_to_space", batch=ROWWISE)
def depth_to_space(call: Call) -> None:
    # As TensorFlow's, whose converter writes it: the block's position is the slowest part of the channel.
    call.node("DepthToSpace", [call.tensor("x")], blocksize=call.integer("block_size", 1), mode="DCR")


@operation("pixel_shuffle", batch=ROWWISE)
def pixel_shuffle(call: Call) -> None:
    call.node("DepthToSpace", [call.tensor("x")], blocksize=call.integer("upscale_factor", 1), mode="CRD")


@operation("space_to_depth", batch=ROWWISE)
def space_to_depth(call: Call) -> None:
    call.node("SpaceToDepth", [call.tensor("x")], blocksize=call.integer("block_size", 1))


@operation("pixel_unshuffle", batch=ROWWISE)
def pixel_unshuffle(call: Call) -> None:
    """As pixel_shuffle's inverse: the block's position is the fastest part of the channel. ONNX has only the other."""
    factor = call.integer("downscale_factor", 1)
    _, channels, height, width = call.fixed_shape("x")
    if height % factor or width % factor:
        raise call.malformed(f"{height} x {width} is not a multiple of {factor}")
    blocks = [0, channels, height // factor, factor, width // factor, factor]
    split = call.node("Reshape", [call.tensor("x"), call.sizes("blocks", blocks)], part="split")
    moved = call.node("Transpose", [split], part="moved", perm=[0, 1, 3, 5, 2, 4])
    shape = [0, channels * factor * factor, height // factor, width // factor]
    call.node("Reshape", [moved, call.sizes("shape", shape)])


@operation("space_to_batch", batch=separable("x"))
def space_to_batch(call: Call) -> None:
    """As TensorFlow's: the block's position is the slowest part of the batch."""
    n, channels, height, width = call.fixed_shape("x")
    rows, columns = call.ints("block_shape", [])
    (top, bottom), (left, right) = call.array("paddings").reshape(2, 2).tolist()
    height, width = height + top + bottom, width + left + right
    if height % rows or width % columns:
        raise call.malformed(f"{height} x {width} with padding is not a multiple of {rows} x {columns}")
    apart = view(call, along_leading=True)
    x = apart.tensor("x")
    if top or bottom or left or right:
        before, after = [0] * (2 + apart.shift) + [top, left], [0] * (2 + apart.shift) + [bottom, right]
        x = call.node("Pad", [x, call.sizes("pads", [*before, *after])], part="padded")
    blocks = [n, channels, height // rows, rows, width // columns, columns]
    moved = _regroup(apart, x, blocks, [3, 5, 0, 1, 2, 4])
    shape = [rows * columns * n, channels, height // rows, width // columns]
    apart.node("Reshape", [moved, call.sizes("shape", _behind_samples(apart, shape))])


@operation("batch_to_space", batch=separable("x"))
def batch_to_space(call: Call) -> None:
    """The inverse, with so much cropped."""
    n, channels, height, width = call.fixed_shape("x")
    rows, columns = call.ints("block_shape", [])
    (top, bottom), (left, right) = call.array("crops").reshape(2, 2).tolist()
    if n % (rows * columns):
        raise call.malformed(f"a batch of {n} is not a multiple of {rows} x {columns}")
    apart = view(call, along_leading=True)
    blocks = [rows, columns, n // (rows * columns), channels, height, width]
    moved = _regroup(apart, apart.tensor("x"), blocks, [2, 3, 4, 0, 5, 1])
    shape = [n // (rows * columns), channels, height * rows, width * columns]
    whole = call.node("Reshape", [moved, call.sizes("shape", _behind_samples(apart, shape))], part="whole")
    starts = call.sizes("starts", [top, left])
    ends = call.sizes("ends", [height * rows - bottom, width * columns - right])
    apart.node("Slice", [whole, starts, ends, call.sizes("axes", [2 + apart.shift, 3 + apart.shift])])


def _regroup(apart: View, x: str, blocks: list[int], perm: list[int]) -> str:
    """x with the dimensions `blocks`, permuted."""
    call = apart.call
    split = call.node("Reshape", [x, call.sizes("blocks", _behind_samples(apart, blocks))], part="split")
    return call.node("Transpose", [split], part="moved", perm=_moved(apart, perm))


def _behind_samples(apart: View, shape: list[int]) -> list[int]:
    return [0] * apart.shift + shape  # 0: as many as there are


def _moved(apart: View, perm: list[int]) -> list[int]:
    return [*range(apart.shift), *(axis + apart.shift for axis in perm)]
