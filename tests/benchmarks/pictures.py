"""The pictures that are sent: dog.jpg and 49 of COCO, damaged ones, large ones, and busy ones."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from detection.images import Pixels, decode_image, encode_jpeg

ARCHIVE = Path("datasets") / "coco-val-49-coco.zip"
DOG = Path("photos") / "dog.jpg"
END_OF_JPEG = b"\xff\xd9"
QUALITY = 90
TILES = 4


def write_pictures(reference: Path, folder: Path) -> list[str]:
    """Write dog.jpg and the 49 pictures into a folder, and return their paths in the order of their names."""
    paths = [folder / "dog.jpg"]
    paths[0].write_bytes((reference / DOG).read_bytes())
    with zipfile.ZipFile(reference / ARCHIVE) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".jpg"):
                paths.append(folder / Path(name).name)
                paths[-1].write_bytes(archive.read(name))
    return [str(path) for path in paths]


def damaged(picture: bytes) -> bytes:
    """Return a JPEG whose header is good and whose data ends half way, with the mark of an end."""
    return picture[: len(picture) // 2] + END_OF_JPEG


def enlarged(picture: bytes, sizes_wh: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the picture at each size, as JPEG."""
    pixels = decode_image(picture).pixels
    for size in sizes_wh:
        yield encode_jpeg(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), QUALITY)


def mosaic(pictures: Sequence[bytes], side: int = 320) -> bytes:
    """Return one picture of many, so that there are more objects in it than in any photograph."""
    tiles = [_tile(picture, side) for picture in pictures[: TILES * TILES]]
    rows = [np.hstack(tiles[start : start + TILES]) for start in range(0, len(tiles), TILES)]
    return encode_jpeg(np.vstack(rows), QUALITY)


def _tile(picture: bytes, side: int) -> Pixels:
    return np.asarray(
        cv2.resize(decode_image(picture).pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8
    )
