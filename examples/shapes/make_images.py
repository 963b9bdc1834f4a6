"""Draws the images of this example: four shapes in grey, 32x32, 60 of each to train with and 50 to measure."""

import random
from pathlib import Path

from PIL import Image, ImageDraw

SHAPES = ("circle", "cross", "square", "triangle")


def draw(shape: str, pen: random.Random) -> Image.Image:
    image = Image.new("RGB", (32, 32), (pen.randint(160, 255),) * 3)
    on, colour = ImageDraw.Draw(image), (pen.randint(0, 110),) * 3
    x, y, r = pen.randint(12, 20), pen.randint(12, 20), pen.randint(6, 10)
    match shape:
        case "circle":
            on.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        case "square":
            on.rectangle((x - r, y - r, x + r, y + r), fill=colour)
        case "triangle":
            on.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
        case "cross":
            on.line((x - r, y - r, x + r, y + r), fill=colour, width=4)
            on.line((x - r, y + r, x + r, y - r), fill=colour, width=4)
    noise = Image.effect_noise((32, 32), 40).convert("RGB")
    return Image.blend(image, noise, 0.2)


def main() -> None:
    pen = random.Random(0)
    for split, count in (("train", 60), ("val", 50)):
        for shape in SHAPES:
            folder = Path(__file__).parent / "images" / split / shape
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                draw(shape, pen).save(folder / f"{number:02}.png")


if __name__ == "__main__":
    main()
