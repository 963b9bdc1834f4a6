"""Sampling images at points: boxes cut out and resized, affine transforms, coordinates given for every output.

Definitions: coremltools/converters/mil/mil/ops/defs/{iOS15,iOS16,iOS17}/image_resizing.py.
"""

from dataclasses import replace

import numpy as np
import onnx

from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.ops.resize import fixed_sizes, sampling_mode
from coreml_prune_bench.runtimes.portable.registry import operation

_BOX_MODES = ("CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST", "CENTER_SIZE_WIDTH_FIRST")

# --- coordinates given


def _resample_keeps_batch(call: Call) -> bool:
    return set(call.batched_parameters()) == {"x", "coordinates"}


@operation("resample", batch=_resample_keeps_batch)
def resample(call: Call) -> None:
    sampling, padding = call.text("sampling_mode", ""), call.text("padding_mode", "")
    if sampling not in ("bilinear", "nearest"):
        raise call.malformed(f"sampling_mode is {sampling!r}")
    if padding not in ("constant", "border", "reflection", "symmetric"):
        raise call.malformed(f"padding_mode is {padding!r}")
    if _is_grid_sample(call, sampling, padding):
        _grid_sample(call, call.tensor("coordinates"), sampling, padding, align=call.flag("align_corners"))
        return
    height, width = fixed_sizes(call, 2)
    coordinates = call.tensor("coordinates")  # [B, H2, W2, 2]
    if not call.is_float("coordinates"):
        coordinates = call.node("Cast", [coordinates], part="coordinates", to=onnx.TensorProto.FLOAT)
    image = call.tensor("x")
    if padding == "constant":  # a border of the value, beyond which nothing changes any more
        pads = [call.sizes("border", [1, 1, 1, 1]), call.number("border_value", call.real("padding_value", 0.0))]
        image = call.node("Pad", [image, *pads, call.sizes("border_axes", [2, 3])], part="bordered")
    image = call.node("Transpose", [image], part="pixels", perm=[0, 2, 3, 1])  # [B, H, W, C]
    x = _position(call, coordinates, "x", width, sampling, padding)
    y = _position(call, coordinates, "y", height, sampling, padding)
    if sampling == "nearest":
        sampled = _at(call, image, y, x, "sampled")
    else:
        border = 2 if padding == "constant" else 0
        sampled = _bilinear(call, image, y, x, height + border, width + border)
    call.node("Transpose", [sampled], perm=[0, 3, 1, 2])


def _is_grid_sample(call: Call, sampling: str, padding: str) -> bool:
    """Whether ONNX's GridSample does the same. It rounds to the nearest pixel before it reflects; this has to after."""
    if call.text("coordinates_mode", "") != "normalized_minus_one_to_one" or not call.is_float("coordinates"):
        return False
    if padding == "constant":
        return call.real("padding_value", 0.0) == 0.0
    return padding == "border" or (
        sampling == "bilinear" and padding == ("reflection" if call.flag("align_corners") else "symmetric")
    )


def _grid_sample(call: Call, grid: str, sampling: str, padding: str, *, align: bool) -> None:
    paddings = {"constant": "zeros", "border": "border", "reflection": "reflection", "symmetric": "reflection"}
    mode = {"bilinear": "linear", "nearest": "nearest"}[sampling]
    inputs = [call.tensor("x"), grid]
    call.node("GridSample", inputs, mode=mode, padding_mode=paddings[padding], align_corners=int(align))


def _position(call: Call, coordinates: str, axis: str, size: int, sampling: str, padding: str) -> str:
    """The positions [B, H2, W2] in the image along one axis; in the image with its border where padding is constant.

    They are whole if sampling is nearest.
    """
    position = _pixels(call, coordinates, axis, size)
    if sampling == "bilinear":
        return _inside(call, position, axis, size, padding)
    if padding == "constant":  # before the border shifts it by 1: halves are rounded to even
        return _inside(call, call.node("Round", [position], part=f"{axis}/nearest"), axis, size, padding)
    return call.node("Round", [_inside(call, position, axis, size, padding)], part=f"{axis}/nearest")


def _pixels(call: Call, coordinates: str, axis: str, size: int) -> str:
    """The positions [B, H2, W2] along one axis, where pixel 0 has its center at 0 and the last one at size - 1."""
    index = call.initializer(f"{axis}/index", np.array("xy".index(axis), np.int64))
    given = call.node("Gather", [coordinates, index], part=f"{axis}/given", axis=-1)
    mode, align = call.text("coordinates_mode", ""), call.flag("align_corners")
    if mode == "unnormalized":
        return given
    if mode not in ("normalized_minus_one_to_one", "normalized_zero_to_one"):
        raise call.malformed(f"coordinates_mode is {mode!r}")
    if mode == "normalized_minus_one_to_one":
        shifted = call.node("Add", [given, call.number(f"{axis}/one", 1.0)], part=f"{axis}/shifted")
        given = call.node("Mul", [shifted, call.number(f"{axis}/half", 0.5)], part=f"{axis}/from_zero")
    length = call.number(f"{axis}/length", size - 1 if align else size)
    scaled = call.node("Mul", [given, length], part=f"{axis}/scaled")
    if align:
        return scaled
    return call.node("Sub", [scaled, call.number(f"{axis}/edge", 0.5)], part=f"{axis}/position")


def _inside(call: Call, position: str, axis: str, size: int, padding: str) -> str:
    """The positions, brought into the image as `padding` says."""
    last = size - 1
    if padding == "constant":
        position = call.node("Add", [position, call.number(f"{axis}/border", 1.0)], part=f"{axis}/in_border")
        last = size + 1
    elif padding == "reflection":  # about the centers of the outermost pixels
        position = _reflected(call, position, axis, size - 1)
    elif padding == "symmetric":  # about their outer edges
        edge = call.number(f"{axis}/outer", 0.5)
        from_edge = call.node("Add", [position, edge], part=f"{axis}/from_edge")
        position = call.node("Sub", [_reflected(call, from_edge, axis, size), edge], part=f"{axis}/symmetric")
    return _clipped(call, position, axis, last)


def _reflected(call: Call, position: str, axis: str, length: int) -> str:
    """Back and forth between 0 and `length`."""
    if length == 0:
        return call.node("Mul", [position, call.number(f"{axis}/nowhere", 0.0)], part=f"{axis}/reflected")
    span = call.number(f"{axis}/span", length)
    distance = call.node("Abs", [position], part=f"{axis}/distance")
    period = call.number(f"{axis}/period", 2 * length)
    there = call.node("Mod", [distance, period], part=f"{axis}/there", fmod=1)
    past = call.node("Abs", [call.node("Sub", [there, span], part=f"{axis}/past")], part=f"{axis}/back")
    return call.node("Sub", [span, past], part=f"{axis}/reflected")


# --- affine transform


@operation("affine")
def affine(call: Call) -> None:
    modes = {"sampling_mode": "bilinear", "padding_mode": "constant", "coordinates_mode": "normalized_minus_one_to_one"}
    for parameter, mode in modes.items():
        if call.text(parameter, mode).lower() != mode:
            raise call.unsupported(f"{parameter} is {call.text(parameter, mode)!r}")
    if call.real("padding_value", 0.0) != 0.0 or not call.flag("align_corners", True):
        raise call.unsupported("padding_value is not 0 or align_corners is not set")
    height, width = call.integer("output_height", 1), call.integer("output_width", 1)
    call.bounded(height, width)
    x, y = np.meshgrid(_minus_one_to_one(width), _minus_one_to_one(height))
    points = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)  # [3, H * W]
    rows = call.node("Reshape", [call.tensor("transform_matrix"), call.sizes("rows", [-1, 2, 3])], part="matrix")
    mapped = call.node("MatMul", [rows, call.initializer("points", points.astype(np.float32))], part="mapped")
    columns = call.node("Transpose", [mapped], part="columns", perm=[0, 2, 1])  # [D, H * W, 2]
    grid = call.node("Reshape", [columns, call.sizes("grid_shape", [-1, height, width, 2])], part="grid")
    batch, matrices = call.fixed_shape("x")[0], call.fixed_shape("transform_matrix")[0]
    if matrices not in (1, batch):
        raise call.malformed(f"{matrices} transforms for {batch} images")
    if matrices < batch:
        grid = call.node("Expand", [grid, call.sizes("batch", [batch, 1, 1, 1])], part="grids")
    _grid_sample(call, grid, "bilinear", "constant", align=True)


def _minus_one_to_one(size: int) -> np.ndarray:
    """The normalized positions of the centers of `size` pixels; a single one is in the middle, as in PyTorch."""
    return np.linspace(-1, 1, size) if size > 1 else np.zeros(1)


# --- boxes


@operation("crop_resize")
def crop_resize(call: Call) -> None:
    """[N, C, H2, W2]; before iOS17 [N, B, C, H2, W2], or [N, 1, C, H2, W2] where every box names its image."""
    height, width = fixed_sizes(call, 2)
    rows, columns = call.integer("target_height", 1), call.integer("target_width", 1)
    indices, boxes = _boxes(call)
    (top, bottom), (left, right) = _corners(call, boxes, height, width)
    last, middle = call.sizes("last", [-1]), call.sizes("middle", [1])
    y = call.node("Unsqueeze", [_box_grid(call, "y", top, bottom, height, rows), last], part="y")  # [N, H2, 1]
    x = call.node("Unsqueeze", [_box_grid(call, "x", left, right, width, columns), middle], part="x")  # [N, 1, W2]
    inside = call.node("And", [_in_image(call, y, "y", height), _in_image(call, x, "x", width)], part="inside")

    images = call.node("Transpose", [call.tensor("x")], part="pixels", perm=[0, 2, 3, 1])  # [B, H, W, C]
    if indices is None:
        shape = call.sizes("points", [call.fixed_shape("x")[0], 1, rows, columns])
    else:
        images = call.node("Gather", [images, indices], part="images", axis=0)  # [N, H, W, C]
        shape = call.sizes("points", [1, rows, columns])
    y = call.node("Expand", [_clipped(call, y, "y", height - 1), shape], part="y/all")
    x = call.node("Expand", [_clipped(call, x, "x", width - 1), shape], part="x/all")
    sampled = _bilinear(call, images, y, x, height, width)  # [N, H2, W2, C] or [B, N, H2, W2, C]

    value = call.number("pad_value", call.real("pad_value", 0.0))
    padded = call.node("Where", [call.node("Unsqueeze", [inside, last], part="kept"), sampled, value], part="padded")
    if indices is None:
        call.node("Transpose", [padded], perm=[1, 0, 4, 2, 3])
    elif call.has("boxes"):
        call.node("Transpose", [padded], perm=[0, 3, 1, 2])
    else:
        call.node("Unsqueeze", [call.node("Transpose", [padded], part="crops", perm=[0, 3, 1, 2]), middle])
        declared = call.output_type
        if declared.rank_known:  # by coremltools with B where this 1 stands
            actual = (*declared.shape[:1], 1, *declared.shape[2:])
            call.graph.types[call.output] = replace(declared, shape=actual)


def _boxes(call: Call) -> tuple[str | None, str]:
    """The image of each box [N], None for every image, and the boxes [N, 4]."""
    if call.has("boxes"):
        boxes = call.tensor("boxes")
        if not call.is_float("boxes"):
            boxes = call.node("Cast", [boxes], part="boxes", to=onnx.TensorProto.FLOAT)
        if call.has("box_indices"):
            return call.tensor("box_indices"), boxes
        return call.sizes("box_indices", range(call.fixed_shape("boxes")[0])), boxes
    values = call.shape("roi")[2]
    if values not in (4, 5):
        raise call.malformed(f"its boxes are of {values} numbers")
    boxes = call.node("Reshape", [call.tensor("roi"), call.sizes("flat", [-1, values])], part="roi")
    if values == 4:
        return None, boxes
    parts = [call.part("roi/index"), call.part("boxes")]
    call.nodes("Split", [boxes, call.sizes("split", [1, 4])], parts, axis=1)
    index = call.node("Squeeze", [parts[0], call.sizes("one", [1])], part="roi/indices")
    return call.node("Cast", [index], part="box_indices", to=onnx.TensorProto.INT64), parts[1]


def _corners(call: Call, boxes: str, height: int, width: int) -> list[tuple[str, str]]:
    """Start and end [N, 1] of the boxes in pixels: of the rows, then of the columns."""
    mode = call.text("box_coordinate_mode", "CORNERS_HEIGHT_FIRST")
    if mode not in _BOX_MODES:
        raise call.malformed(f"box_coordinate_mode is {mode!r}")
    sizes = [height - 1, width - 1] if call.flag("normalized_coordinates") else [1, 1]
    height_first = mode.endswith("HEIGHT_FIRST")
    scale = np.array(sizes if height_first else sizes[::-1], np.float32) * call.real("spatial_scale", 1.0)
    scaled = call.node("Mul", [boxes, call.initializer("scale", np.tile(scale, 2))], part="scaled")
    columns = [call.part(f"box/{position}") for position in range(4)]
    call.nodes("Split", [scaled], columns, axis=1, num_outputs=4)
    ends = [(columns[0], columns[2]), (columns[1], columns[3])]
    if mode.startswith("CENTER_SIZE"):
        ends = [_around(call, center, size) for center, size in ends]
    return ends if height_first else ends[::-1]


def _around(call: Call, center: str, size: str) -> tuple[str, str]:
    reach = call.graph.node("Mul", [size, call.number("half", 0.5)], f"{size}/half")
    start = call.graph.node("Sub", [center, reach], f"{center}/start")
    return start, call.graph.node("Add", [center, reach], f"{center}/end")


def _box_grid(call: Call, axis: str, start: str, end: str, size: int, count: int) -> str:
    """The `count` sampling points of each box along one axis [N, count], by the sampling mode.

    The formulas are those of `resize_bilinear` for an image that is the box, which has end - start + 1 pixels.
    """
    call.bounded(count)
    mode, index = sampling_mode(call), np.arange(count, dtype=np.float32)
    if mode == "UNALIGN_CORNERS":
        start, end = _whole_if_inverted(call, axis, start, end, size)
    last = call.node("Sub", [end, start], part=f"{axis}/last")
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        share = np.full(1, 0.5 if mode == "ALIGN_CORNERS" else 0.0) if count == 1 else index / (count - 1)
        in_box = call.node("Mul", [last, _row(call, f"{axis}/share", share)], part=f"{axis}/in_box")
    else:
        share = (index if mode == "DEFAULT" else index + 0.5) / count
        offset = {"DEFAULT": share, "UNALIGN_CORNERS": share - 0.5, "OFFSET_CORNERS": 0 * share}[mode]
        one = call.number(f"{axis}/one", 1.0)
        length = call.node("Max", [last, one], part=f"{axis}/length") if mode == "OFFSET_CORNERS" else last
        scaled = call.node("Mul", [length, _row(call, f"{axis}/share", share)], part=f"{axis}/scaled")
        points = call.node("Add", [scaled, _row(call, f"{axis}/offset", offset)], part=f"{axis}/points")
        positive = call.node("Max", [points, call.number(f"{axis}/zero", 0.0)], part=f"{axis}/positive")
        in_box = call.node("Min", [positive, last], part=f"{axis}/in_box")
    rounded = call.node("Add", [start, in_box], part=f"{axis}/rounded")
    # Rounding must not carry a point past the end of its box, where the image may end too.
    far, near = (call.node(limit, [start, end], part=f"{axis}/{limit}") for limit in ("Max", "Min"))
    return call.node("Max", [call.node("Min", [rounded, far], part=f"{axis}/not_far"), near], part=f"{axis}/grid")


def _whole_if_inverted(call: Call, axis: str, start: str, end: str, size: int) -> tuple[str, str]:
    """The formula has no meaning for a box that ends before it starts: coremltools' test gets the whole image there."""
    inverted = call.node("Less", [end, start], part=f"{axis}/inverted")
    first, last = call.number(f"{axis}/first", 0.0), call.number(f"{axis}/image_end", size - 1)
    return (
        call.node("Where", [inverted, first, start], part=f"{axis}/start"),
        call.node("Where", [inverted, last, end], part=f"{axis}/end"),
    )


def _row(call: Call, part: str, values: np.ndarray) -> str:
    return call.initializer(part, values.astype(np.float32)[np.newaxis])


def _in_image(call: Call, position: str, axis: str, size: int) -> str:
    low, high = call.number(f"{axis}/low", 0.0), call.number(f"{axis}/high", size - 1)
    after = call.node("GreaterOrEqual", [position, low], part=f"{axis}/after_first")
    before = call.node("LessOrEqual", [position, high], part=f"{axis}/before_last")
    return call.node("And", [after, before], part=f"{axis}/in_image")


# --- pixels


def _clipped(call: Call, position: str, axis: str, last: int) -> str:
    low, high = call.number(f"{axis}/low", 0.0), call.number(f"{axis}/high", last)
    return call.node("Clip", [position, low, high], part=f"{axis}/clipped")


def _bilinear(call: Call, images: str, y: str, x: str, height: int, width: int) -> str:
    """[N, .., C] of images [N, H, W, C] at the positions y and x [N, ..], none of which is outside."""
    above, below, down = _neighbors(call, y, "y", height)
    left, right, across = _neighbors(call, x, "x", width)
    rows = []
    for name, row in (("above", above), ("below", below)):
        ends = [_at(call, images, row, column, f"{name}/{n}") for n, column in enumerate((left, right))]
        rows.append(_between(call, ends[0], ends[1], across, name))
    return _between(call, rows[0], rows[1], down, "sampled")


def _neighbors(call: Call, position: str, axis: str, size: int) -> tuple[str, str, str]:
    """The pixel before each position, the one after it, and the share [.., 1] of the latter."""
    before = call.node("Floor", [position], part=f"{axis}/before")
    following = call.node("Add", [before, call.number(f"{axis}/pixel", 1.0)], part=f"{axis}/following")
    after = call.node("Min", [following, call.number(f"{axis}/final", size - 1)], part=f"{axis}/after")
    fraction = call.node("Sub", [position, before], part=f"{axis}/fraction")
    return before, after, call.node("Unsqueeze", [fraction, call.sizes("channels", [-1])], part=f"{axis}/weight")


def _between(call: Call, start: str, end: str, share: str, part: str) -> str:
    change = call.node("Sub", [end, start], part=f"{part}/change")
    return call.node("Add", [start, call.node("Mul", [change, share], part=f"{part}/step")], part=part)


def _at(call: Call, images: str, y: str, x: str, part: str) -> str:
    """The pixels [N, .., C] of images [N, H, W, C] at whole positions y and x [N, ..]."""
    pairs = [
        call.node("Unsqueeze", [position, call.sizes("channels", [-1])], part=f"{part}/{axis}")
        for axis, position in (("y", y), ("x", x))
    ]
    pair = call.node("Concat", pairs, part=f"{part}/floats", axis=-1)
    indices = call.node("Cast", [pair], part=f"{part}/indices", to=onnx.TensorProto.INT64)
    return call.node("GatherND", [images, indices], part=part, batch_dims=1)
