"""Pictures made in the test itself: no file is needed, and every byte is known."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

from detection.images import Pixels, encode_jpeg

QUADRANTS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
"""BGR of the top left, top right, bottom left and bottom right quarter."""


def quadrants(width: int = 64, height: int = 48) -> Pixels:
    """Return a picture whose four quarters have four colours, so that every turn of it shows."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for index, colour in enumerate(QUADRANTS):
        top, left = index // 2 * (height // 2), index % 2 * (width // 2)
        pixels[top : top + height // 2, left : left + width // 2] = colour
    return pixels


def noise(width: int, height: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def exif(orientation: int, *, order: str = "<", field: str = "H", prefix: bytes = b"") -> bytes:
    """Return an EXIF block with the one tag that matters."""
    mark = b"II" if order == "<" else b"MM"
    kind = 3 if field == "H" else 4
    value = struct.pack(order + field, orientation).ljust(4, b"\0")
    entry = struct.pack(order + "HHI", 0x0112, kind, 1) + value
    return prefix + mark + struct.pack(order + "HIH", 42, 8, 1) + entry + bytes(4)


def jpeg(pixels: Pixels, *, orientation: int | None = None, order: str = "<", field: str = "H") -> bytes:
    data = encode_jpeg(pixels, 95)
    if orientation is None:
        return data
    block = exif(orientation, order=order, field=field, prefix=b"Exif\0\0")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def png(pixels: Pixels, *, orientation: int | None = None) -> bytes:
    data = cv2.imencode(".png", pixels)[1].tobytes()
    return data if orientation is None else data[:33] + png_chunk(b"eXIf", exif(orientation)) + data[33:]


def png_chunk(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def png_header(width: int, height: int, *, depth: int = 8, colour: int = 2) -> bytes:
    """Return the start of a PNG that announces any size, with no pixels behind it."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


def webp(pixels: Pixels, *, orientation: int | None = None) -> bytes:
    """Return a lossless WebP; with an orientation in the extended layout, as cameras and editors write it."""
    data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    if orientation is None:
        return data
    height, width = (side - 1 for side in pixels.shape[:2])
    canvas = struct.pack("<II", 0x08, width)[:7] + struct.pack("<I", height)[:3]
    block = exif(orientation)
    chunks = b"VP8X" + struct.pack("<I", 10) + canvas + _image_chunk(data)
    chunks += b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def animated_webp(frames: list[Pixels], *, canvas_wh: tuple[int, int] | None = None) -> bytes:
    """Return an animation; on a canvas of another size than its pictures if one is given."""
    animation = cv2.Animation()
    animation.frames, animation.durations = frames, np.full(len(frames), 100, np.int32)  # type: ignore[assignment]
    data = bytearray(cv2.imencodeanimation(".webp", animation)[1].tobytes())
    if canvas_wh is not None:
        data[24:30] = b"".join((side - 1).to_bytes(3, "little") for side in canvas_wh)
    return bytes(data)


def _image_chunk(data: bytes) -> bytes:
    position = data.index(b"VP8L")
    (length,) = struct.unpack_from("<I", data, position + 4)
    return data[position : position + 8 + length + length % 2]


def bmp(pixels: Pixels) -> bytes:
    return cv2.imencode(".bmp", pixels)[1].tobytes()
