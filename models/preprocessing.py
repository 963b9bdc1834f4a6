"""How an image becomes what a network takes: the part of it that is looked at, and the numbers that its pixels become.

Suites, records and the command line share it. It imports no torch: a network that is built to take other numbers is
`normalization.py`'s.
"""

from typing import Any, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from coreml_prune_bench.models.imagenet import IMAGENET_SIZE

Crop = Literal["center", "centerCrop", "scaleFill"]
"""center: torchvision's, out of the image resized to `resize`. centerCrop and scaleFill are Vision's: the image scaled
until it covers the square, and its centre; the image stretched to the square."""

Interpolation = Literal["bilinear", "bicubic", "lanczos"]
Layout = Literal["NCHW", "NHWC", "NCHW-BGR", "NHWC-BGR"]

_IMAGENET_RESIZE = 256
_NUMBERS = ("scale", "mean", "std")


class Preprocessing(BaseModel):
    """What is done to an image; the defaults are torchvision's of ImageNet, and what the network says of its input.

    resize: pixels of the shorter side before the centre is cut out; None: 256 for a network that takes 224, else what
    it takes. scale, mean, std: a network takes (pixel * scale - mean) / std, pixels from 0 to 255; mean and std are one
    number or one a channel, in the order of the channels. All three None: nothing is said. layout: of an array's axes
    and channels; None: told by its shape, and RGB.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    resize: int | None = Field(None, ge=1, le=8192)
    crop: Crop = "center"
    interpolation: Interpolation = "bilinear"
    layout: Layout | None = None
    scale: float | None = Field(None, gt=0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _one_number_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("mean", "std")
    @classmethod
    def _one_or_one_a_channel(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and len(value) not in (1, 3):
            raise ValueError(f"expected 1 number, or 3 for red, green and blue, got {len(value)}")
        return value

    @field_validator("std")
    @classmethod
    def _is_divided_by(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and min(value) <= 0:
            raise ValueError(f"expected numbers above 0, got {min(value):g}")
        return value

    @model_validator(mode="after")
    def _is_resized_for_the_centre_alone(self) -> Self:
        if self.resize is not None and self.crop != "center":
            raise ValueError(f"resize: {self.crop} says how large the image becomes; leave it out")
        return self

    @property
    def normalizes(self) -> bool:
        """Whether it says what numbers pixels become."""
        return any(getattr(self, name) is not None for name in _NUMBERS)

    @property
    def view(self) -> Self:
        """The part that is about which pixels are looked at, which is what images are prepared by."""
        return self.model_copy(update=dict.fromkeys(("layout", *_NUMBERS)))

    @property
    def unusual_view(self) -> Self | None:
        """The view, where it is not as usual."""
        view = self.view
        return view if view.changes() else None

    def changes(self) -> dict[str, Any]:
        """What differs from the defaults, as plain values: what keys hold, so that the defaults are in none."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def affine(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Factors and summands such that a network takes factor * pixel + summand; of each one, or one a channel.

        Without a scale pixels count from 0 to 1, as torchvision's ToTensor has them.
        """
        scale = 1 / 255 if self.scale is None else self.scale
        mean, std = self.mean or (0.0,), self.std or (1.0,)
        channels = max(len(mean), len(std))
        means, stds = (values * channels if len(values) == 1 else values for values in (mean, std))
        pairs = list(zip(means, stds, strict=True))
        return tuple(scale / s for _, s in pairs), tuple(-m / s for m, s in pairs)

    def in_short(self) -> str:
        """The view in a few words, whatever a network takes."""
        resize = f" of {self.resize}" if self.resize else ""
        return f"{self.crop}{resize}, {self.interpolation}"

    def of_view(self, image_size: int) -> str:
        """The view in words, of a network that takes so many pixels a side."""
        if self.crop == "center":
            first = f"resized to {self.shorter_side(image_size)}"
            what = f"{first}, the central {image_size} pixels"
        elif self.crop == "centerCrop":
            what = f"scaled to cover {image_size} pixels, the centre of it"
        else:
            what = f"stretched to {image_size} pixels"
        return f"{what}, {self.interpolation}"

    def in_words(self) -> str:
        """What pixels become, in words."""
        if not self.normalizes:
            return "pixels as they are, 0 to 255"
        scale = "/ 255" if self.scale is None else f"* {self.scale:.6g}"
        text = f"pixel {scale}"
        if self.mean:
            text = f"({text} - {_listed(self.mean)})"
        return f"{text} / {_listed(self.std)}" if self.std else text

    def shorter_side(self, image_size: int) -> int:
        """To how many pixels the shorter side is scaled before the centre of `image_size` is cut out."""
        if self.crop == "centerCrop":
            return image_size
        return self.resize or (_IMAGENET_RESIZE if image_size == IMAGENET_SIZE else image_size)


USUAL = Preprocessing()


class Recipe(NamedTuple):
    """What a network was evaluated with by those who trained it: the side of its images in pixels, and the rest."""

    image_size: int
    preprocessing: Preprocessing


def recipe_of(
    image_size: int, resize: int | None, interpolation: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> Recipe | None:
    """A recipe as torchvision and timm word one; resize: None where images are stretched. None for what is not known.

    What is as usual is written so: keys hold what is not.
    """
    if interpolation not in get_args(Interpolation):
        return None
    if resize == USUAL.shorter_side(image_size):
        resize, crop = None, "center"
    else:
        crop = "center" if resize else "scaleFill"
    content = {"resize": resize, "crop": crop, "interpolation": interpolation, "mean": mean, "std": std}
    return Recipe(image_size, Preprocessing.model_validate(content))


def _listed(values: tuple[float, ...]) -> str:
    numbers = ", ".join(f"{value:g}" for value in values)
    return numbers if len(values) == 1 else f"[{numbers}]"
