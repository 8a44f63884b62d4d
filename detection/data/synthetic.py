"""A dataset made by a program: shapes on textured grounds, for a first training without any download.

Every picture depends on the seed and its number only. Classes are told apart by outline alone: colours,
sizes and grounds are drawn alike for all of them, and thin lines cross the picture as distraction. Which
channel of its colour is the strongest is an attribute of each box, for a second stage to learn.

`python -m detection.data.synthetic FOLDER` writes one.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from detection.data.draws import Purpose, draws
from detection.data.export import write_folder, zip_files
from detection.data.formats import FORMATS
from detection.data.formats.dataset_format import ExportedFile
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from detection.images import Pixels, encode_jpeg

NUM_IMAGES = 400
CLASSES = ("circle", "square", "triangle")
COLOURS = ("blue", "green", "red")
"""By the strongest channel, in the order of OpenCV."""
LAYOUTS = ("yolo", "coco", "voc")
"""That the command offers: a folder per class has pictures of one thing only."""
VALIDATION_EVERY = 5
"""Every fifth picture is for validation."""
EMPTY_SHARE = 0.05
MOST_SHAPES = 6
PLACING_TRIES = 30
CORNERS = {"circle": (72, 0.0), "square": (4, 45.0), "triangle": (3, -90.0)}
"""How many corners a shape has, and in which direction from its centre the first one lies, degrees."""
MOST_DEGREES = 15.0
"""A shape is turned by so much at most, either way."""
SIDES = (0.2, 0.5)
"""Smallest and largest diameter of a shape, as fractions of the picture's side."""
MIN_CONTRAST = 110.0
"""Between a shape and the ground under it, as a distance of colours."""
SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True)
class _Shape:
    class_id: int
    outline: NDArray[np.float64]
    """[n, 2]: x and y of a closed polygon, pixels."""
    colour: str = ""
    """One of `COLOURS`, as soon as it is drawn."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        (x1, y1), (x2, y2) = self.outline.min(axis=0), self.outline.max(axis=0)
        return float(x1), float(y1), float(x2), float(y2)


def write_synthetic_dataset(
    target: Path, *, num_images: int = NUM_IMAGES, size: int = 256, seed: int = 0, format_name: str = "yolo"
) -> None:
    """Write the dataset as a folder, in the layout of one of `FORMATS`, with `train` and `val`.

    Args:
        size: side of the square pictures, pixels.

    Raises:
        UnknownNameError: there is no such format.
    """
    write_folder(_files(num_images, size, seed, format_name), target)


def zip_synthetic_dataset(
    target: Path, *, num_images: int = NUM_IMAGES, size: int = 256, seed: int = 0, format_name: str = "yolo"
) -> None:
    """Write the same dataset as one zip archive, ready for upload."""
    with target.open("wb") as file:
        for chunk in zip_files(_files(num_images, size, seed, format_name)):
            file.write(chunk)


def _files(num_images: int, size: int, seed: int, format_name: str) -> Iterator[ExportedFile]:
    pictures: dict[str, bytes] = {}
    images = []
    for number in range(num_images):
        pixels, shapes = _picture(draws(seed, Purpose.SYNTHETIC, number), size)
        image = _record(number, size, shapes)
        pictures[image.id] = encode_jpeg(pixels)
        images.append(image)
    dataset = DatasetRecord(format=format_name, classes=CLASSES, images=tuple(images))
    return FORMATS[format_name].write(dataset, lambda image: pictures[image.id])


def _record(number: int, size: int, shapes: list[_Shape]) -> ImageRecord:
    boxes = tuple(
        BoxRecord(
            class_id=shape.class_id,
            x1=round(x1, 2),
            y1=round(y1, 2),
            x2=round(x2, 2),
            y2=round(y2, 2),
            attributes=(("colour", shape.colour),),
        )
        for shape in shapes
        for x1, y1, x2, y2 in [shape.box]
    )
    split = Split.VAL if number % VALIDATION_EVERY == VALIDATION_EVERY - 1 else Split.TRAIN
    name = f"{number + 1:06d}"
    return ImageRecord(id=name, file_name=f"{name}.jpg", width=size, height=size, split=split, boxes=boxes)


def _picture(rng: Generator, size: int) -> tuple[Pixels, list[_Shape]]:
    canvas = _ground(rng, size)
    for _ in range(int(rng.integers(5))):
        _draw_line(canvas, rng)
    shapes = [_drawn(canvas, shape, rng) for shape in _shapes(rng, size)]
    canvas += rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(2.0, 8.0))
    return np.clip(canvas, 0, 255).astype(np.uint8), shapes


def _ground(rng: Generator, size: int) -> NDArray[np.float32]:
    """Return a greyish ground with patches and stripes."""
    cells = int(rng.choice([4, 8, 16, 32]))
    tint = rng.uniform(50, 200) + rng.normal(0.0, 8.0, 3)
    patches = tint + rng.normal(0.0, rng.uniform(5.0, 20.0), (cells, cells, 1))
    smooth = cv2.resize(patches.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    turn, waves = rng.uniform(0, math.pi), rng.uniform(3, 20)
    along = np.arange(size, dtype=np.float32) * np.float32(2 * math.pi * waves / size)
    stripes = np.sin(along[:, None] * np.float32(math.sin(turn)) + along * np.float32(math.cos(turn)))
    strength = np.float32(rng.uniform(0.0, 15.0))
    return np.asarray(smooth + strength * stripes[:, :, None], np.float32)


def _shapes(rng: Generator, size: int) -> list[_Shape]:
    """Draw shapes that hardly overlap; now and then none at all."""
    if rng.random() < EMPTY_SHARE:
        return []
    num_shapes = int(rng.integers(2, MOST_SHAPES + 1))
    shapes: list[_Shape] = []
    for _ in range(PLACING_TRIES):
        shape = _shape(rng, size)
        if all(_overlap(shape, other) < 0.05 for other in shapes):
            shapes.append(shape)
        if len(shapes) == num_shapes:
            break
    return shapes


def _shape(rng: Generator, size: int) -> _Shape:
    """Draw one shape, wholly inside of the picture."""
    class_id = int(rng.integers(len(CLASSES)))
    num_corners, first_degrees = CORNERS[CLASSES[class_id]]
    radius = math.exp(rng.uniform(*np.log(SIDES))) * size / 2
    first = math.radians(first_degrees + rng.uniform(-MOST_DEGREES, MOST_DEGREES))
    angles = first + np.arange(num_corners) * 2 * math.pi / num_corners
    outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius
    low, high = -outline.min(axis=0), size - outline.max(axis=0)
    return _Shape(class_id, outline + rng.uniform(low, high))


def _overlap(shape: _Shape, other: _Shape) -> float:
    """Return the part of the smaller box that lies in the other one."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = shape.box, other.box
    shared = max(min(ax2, bx2) - max(ax1, bx1), 0.0) * max(min(ay2, by2) - max(ay1, by1), 0.0)
    return shared / min((ax2 - ax1) * (ay2 - ay1), (bx2 - bx1) * (by2 - by1))


def _drawn(canvas: NDArray[np.float32], shape: _Shape, rng: Generator) -> _Shape:
    """Draw a shape in a colour that stands out from the ground, and return it with the colour's name."""
    x1, y1, x2, y2 = map(int, shape.box)
    under = canvas[y1 : y2 + 1, x1 : x2 + 1].mean(axis=(0, 1))
    colour = _bright_colour(rng)
    while np.linalg.norm(colour - under) < MIN_CONTRAST:
        colour = _bright_colour(rng)
    corners = np.round((shape.outline - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(canvas, [corners], colour.tolist(), shift=SUBPIXEL_BITS)
    return replace(shape, colour=COLOURS[int(colour.argmax())])


def _bright_colour(rng: Generator) -> NDArray[np.float64]:
    """Return a saturated colour: one channel strong, one weak, one anywhere between."""
    return rng.permutation([rng.uniform(0, 70), rng.uniform(0, 255), rng.uniform(170, 255)])


def _draw_line(canvas: NDArray[np.float32], rng: Generator) -> None:
    start, end = ((int(x), int(y)) for x, y in rng.uniform(0, canvas.shape[0], (2, 2)))
    cv2.line(canvas, start, end, _bright_colour(rng).tolist(), int(rng.integers(1, 3)))


def main(arguments: list[str] | None = None) -> None:
    """Write the dataset into the folder that the command line names, and say what it is."""
    parser = argparse.ArgumentParser(prog="python -m detection.data.synthetic", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures and labels go; made if it is not there")
    parser.add_argument(
        "--format", default="yolo", choices=LAYOUTS, help="yolo, the default, has no place for colours"
    )
    parser.add_argument(
        "--images", type=int, default=NUM_IMAGES, metavar="NUMBER", help=f"how many; {NUM_IMAGES} by default"
    )
    chosen = parser.parse_args(arguments)
    if chosen.images < 1:
        parser.error("--images: at least 1")
    folder: Path = chosen.folder
    try:
        write_synthetic_dataset(folder, num_images=chosen.images, format_name=chosen.format)
    except OSError as error:
        sys.exit(f"cannot write to {folder}: {error.strerror}")
    *most, last = (f"{name}s" for name in CLASSES)
    shapes, layout = f"{', '.join(most)} and {last}", chosen.format.upper()
    sys.stdout.write(
        f"{folder.absolute()}: {chosen.images} pictures of {shapes} with their labels ({layout})\n"
    )


if __name__ == "__main__":
    main()
