"""The options that say what is done to images before a network sees them, for every command that takes them."""

from collections.abc import Callable
from typing import Annotated

import typer
from pydantic import ValidationError

from coreml_prune_bench.cli.grouped import takes
from coreml_prune_bench.cli.options import finite
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.problems import in_one_line, problems_of
from coreml_prune_bench.models.preprocessing import Crop, Interpolation, Preprocessing

_PANEL = "Preprocessing"


def takes_preprocessing(*, layout: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose parameter `asked: Preprocessing` becomes the options of `_preprocessing`.

    layout: with `--layout`, where arrays are given to a package.
    """
    return takes("asked", _preprocessing, without=() if layout else ("layout",))


def _preprocessing(
    mean: Annotated[
        str | None,
        typer.Option(
            "--mean",
            metavar="NUMBERS",
            help="An array input takes (pixel * scale - mean) / std: one number, or one a channel with commas.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    std: Annotated[
        str | None, typer.Option("--std", metavar="NUMBERS", help="As --mean.", rich_help_panel=_PANEL)
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            help="What a pixel from 0 to 255 is multiplied with first.  [1/255 with --mean or --std]",
            callback=finite,
            rich_help_panel=_PANEL,
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            metavar="AXES",
            help="Of an array: NCHW, NHWC, NCHW-BGR or NHWC-BGR.  [as its shape says, RGB]",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    resize: Annotated[
        int | None,
        typer.Option(
            "--resize",
            metavar="PIXELS",
            help="Of the shorter side, before the centre is cut out.  [256 for 224, else what the package takes]",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    crop: Annotated[
        Crop,
        typer.Option(
            "--crop",
            help="center: out of the resized image. Vision's centerCrop: of the image scaled to cover the square; "
            "scaleFill: stretched to it.",
            rich_help_panel=_PANEL,
        ),
    ] = "center",
    interpolation: Annotated[
        Interpolation,
        typer.Option("--interpolation", help="How images are scaled, with antialias.", rich_help_panel=_PANEL),
    ] = "bilinear",
) -> Preprocessing:
    """What the options say. Raises BenchError that names the option."""
    content = {
        "mean": _numbers("--mean", mean),
        "std": _numbers("--std", std),
        "scale": scale,
        "layout": layout.upper() if layout else None,
        "resize": resize,
        "crop": crop,
        "interpolation": interpolation,
    }
    try:
        return Preprocessing.model_validate(content)
    except ValidationError as error:
        told = problems_of(error, Preprocessing, lambda place: "")
        raise BenchError(in_one_line([f"--{one}" for one in told])) from error


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise BenchError(f"{option} {text}: expected a number, or three with commas") from None
