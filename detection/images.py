"""Pictures from bytes and back: decoded upright, never larger than allowed, never half of one."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.errors import DamagedImageError, ImageTooLargeError
from detection.image_headers import (
    ImageHeader,
    ImageKind,
    bare_png,
    first_of_webp,
    is_complete,
    longer_jpeg,
    read_header,
    sniff_image,
)

__all__ = [
    "BYTES_PER_PIXEL",
    "MAX_PIXELS",
    "DecodedImage",
    "ImageHeader",
    "Pixels",
    "check_header",
    "decode_image",
    "decoding_bytes",
    "encode_jpeg",
    "read_header",
    "sniff_image",
]

Pixels = NDArray[np.uint8]
"""A picture: height, width, channels in the order blue, green, red."""

MAX_PIXELS = 100_000_000
"""300 MB decoded; the largest cameras of 2026 stay below."""

BYTES_PER_PIXEL = 3
_COPIES = {ImageKind.JPEG: 1, ImageKind.PNG: 2, ImageKind.WEBP: 2, ImageKind.BMP: 1}
"""Of the decoded picture that OpenCV holds at a time: kinds that may be animated have a canvas, too."""
_COEFFICIENT_BYTES = 6
"""Per pixel of a JPEG with many scans: 16 bits for each of three components."""

_BARE = {ImageKind.PNG: bare_png, ImageKind.WEBP: first_of_webp}
"""Leaves what a picture needs of kinds that may be animated."""
_GREY = 128
"""Where no data is, in all three channels."""

# A broken picture is answered by an exception; OpenCV would also write a line per picture to stderr.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_READ_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The pixels of a picture as a person sees it."""

    pixels: Pixels
    """Perhaps reduced while decoding: then smaller than width and height."""
    width: int
    height: int
    """Of the full picture, pixels."""

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.width, self.height


def decode_image(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    input_size_hw: tuple[int, int] | None = None,
    header: ImageHeader | None = None,
) -> DecodedImage:
    """Decode a JPEG, PNG, WebP or BMP picture to 8-bit BGR, with its EXIF orientation applied.

    Grey, palette, 16-bit and CMYK pictures are converted, transparency is dropped, and of an animation the
    first picture is taken.

    Args:
        data: the whole file.
        max_pixels: a picture whose header announces more is refused before anything is decoded.
        input_size_hw: the network input that the picture is meant for. A JPEG at least twice as large in
            both directions is decoded at 1/2, 1/4 or 1/8 of its size, which is several times faster.
        header: what `check_header` returned, where that was asked already.

    Raises:
        UnsupportedImageError: not one of the four kinds.
        DamagedImageError: cannot be decoded, or is cut off; a part of a picture is never returned.
        ImageTooLargeError: more than `max_pixels`.
    """
    if header is None:
        header = check_header(data, max_pixels=max_pixels)
    if not is_complete(data, header.kind):
        raise DamagedImageError(f"the {header.kind.upper()} picture is cut off: it has no end")
    reduction = _reduction(header, input_size_hw)
    flags = _READ_FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = _decode(_BARE.get(header.kind, bytes)(data), flags)
    expected_hw = tuple(-(-side // reduction) for side in header.stored_size_hw)
    if pixels.shape[:2] != expected_hw:
        height, width = header.stored_size_hw
        raise DamagedImageError(
            f"the header announces {width}×{height} pixels, but the picture has another size"
        )
    if header.kind is ImageKind.JPEG and _lacks_data(data, pixels, flags):
        raise DamagedImageError("the JPEG picture is cut off: its data ends before its last pixel")
    return DecodedImage(_upright(pixels, header.orientation), header.width, header.height)


def check_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Return what a picture says about itself; nothing is decoded.

    Raises:
        UnsupportedImageError: not one of the four kinds.
        DamagedImageError: the header is broken, or announces far more than the file holds.
        ImageTooLargeError: more than `max_pixels`.
    """
    header = read_header(data)
    if header.width * header.height > max_pixels:
        raise ImageTooLargeError(
            f"the picture has {header.width}×{header.height} pixels, more than the {max_pixels:,} allowed"
        )
    if len(data) < header.fewest_bytes:
        raise DamagedImageError(
            f"the {header.kind.upper()} picture is cut off: {header.width}×{header.height} pixels need more "
            f"than {len(data):,} bytes"
        )
    return header


def decoding_bytes(header: ImageHeader, *, input_size_hw: tuple[int, int] | None = None) -> int:
    """Return about how much memory `decode_image` takes at most for a picture, the result included."""
    num_pixels = header.width * header.height
    reduction = _reduction(header, input_size_hw)
    decoded = BYTES_PER_PIXEL * num_pixels // reduction**2
    copies = _COPIES[header.kind] + (header.orientation > 1)
    coefficients = _COEFFICIENT_BYTES * num_pixels if header.many_scans else 0
    return decoded * copies + coefficients


def encode_jpeg(pixels: Pixels, quality: int = 90) -> bytes:
    """Return a picture (height, width, BGR) as a JPEG file; quality from 1 to 100."""
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"a picture of shape {pixels.shape} cannot be written as JPEG")
    return data.tobytes()


def _reduction(header: ImageHeader, input_size_hw: tuple[int, int] | None) -> int:
    """Return the largest of 1, 2, 4, 8 that leaves the picture at least as large as the input."""
    if input_size_hw is None or header.kind is not ImageKind.JPEG:
        return 1
    spare = min(header.height / input_size_hw[0], header.width / input_size_hw[1])
    return max(factor for factor in _READ_FLAGS if factor <= max(spare, 1))


def _decode(data: bytes, flags: int) -> Pixels:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise DamagedImageError("the picture is damaged: it cannot be decoded")
    return np.asarray(pixels, np.uint8)


def _lacks_data(data: bytes, pixels: Pixels, flags: int) -> bool:
    """Return whether a JPEG's data ended before its last pixel, which libjpeg then leaves grey.

    A grey that was meant is the same with more data behind it.
    """
    if np.any(pixels[-1, -1] != _GREY):
        return False
    return not np.array_equal(pixels, _decode(longer_jpeg(data), flags))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn stored pixels the way that their EXIF orientation asks for."""
    turned: cv2.typing.MatLike
    match orientation:
        case 2:
            turned = cv2.flip(pixels, 1)
        case 3:
            turned = cv2.rotate(pixels, cv2.ROTATE_180)
        case 4:
            turned = cv2.flip(pixels, 0)
        case 5:
            turned = cv2.transpose(pixels)
        case 6:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            turned = cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180)
        case 8:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            turned = pixels
    return np.asarray(turned, np.uint8)
