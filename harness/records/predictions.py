"""What a package predicts for a data set, image by image; everything said of accuracy follows from it."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coreml_prune_bench.records.quantities import ClassIndex

Precision = Literal["float32", "float16"]
"""What the portable runtime computes in: Float32 throughout, or every Float16 result of the program rounded to it."""


class Predictions(BaseModel):
    """By image, in the split's order without those skipped: the label, and the five highest classes, best first."""

    model_config = ConfigDict(frozen=True)

    labels: tuple[ClassIndex, ...] = Field(min_length=1)
    top5: tuple[Annotated[tuple[ClassIndex, ...], Field(min_length=1, max_length=5)], ...]

    @model_validator(mode="after")
    def _are_of_one_length(self) -> Self:
        if len(self.labels) != len(self.top5):
            raise ValueError(f"{len(self.labels):,} labels, but the classes of {len(self.top5):,} images")
        return self

    @property
    def top1(self) -> float:
        """Fraction of images whose best class is the label."""
        return self._hits(1)

    @property
    def top5_accuracy(self) -> float:
        """Fraction of images whose label is among the five best."""
        return self._hits(5)

    def _hits(self, k: int) -> float:
        return sum(label in top[:k] for label, top in zip(self.labels, self.top5, strict=True)) / len(self.labels)
