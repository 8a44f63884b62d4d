"""What a picture says about itself before a pixel is decoded: kind, size, orientation. Plain Python.

The kind is told by content, never by name. One rule of orientation holds for every kind: the EXIF tag of
the first EXIF block (JPEG's APP1, PNG's `eXIf`, WebP's `EXIF`); text chunks and XMP do not count.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from detection.errors import DamagedImageError, UnsupportedImageError


class ImageKind(StrEnum):
    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    BMP = "bmp"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """The facts of one picture; none of them is checked against the pixels yet."""

    kind: ImageKind
    width: int
    height: int
    """Pixels of the picture as a person sees it, EXIF orientation applied."""
    orientation: int = 1
    """EXIF: 1 is upright; 5 to 8 are stored with width and height exchanged."""
    many_scans: bool = False
    """A JPEG, progressive mostly, that a decoder must hold as a whole, however small it is decoded."""

    @property
    def stored_size_hw(self) -> tuple[int, int]:
        """Height and width of the pixels as they lie in the file."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)

    @property
    def fewest_bytes(self) -> int:
        """Of the whole file: in a JPEG of one scan every block of 8 by 8 pixels costs a bit and more."""
        if self.kind is not ImageKind.JPEG or self.many_scans:
            return 0
        return -(-self.width // 8) * -(-self.height // 8) // 8


def read_header(data: bytes) -> ImageHeader:
    """Read kind, size and orientation of a picture.

    Raises:
        UnsupportedImageError: the bytes are no JPEG, PNG, WebP or BMP.
        DamagedImageError: they begin like one, but the header is broken.
    """
    kind = sniff_image(data)
    if kind is None:
        raise UnsupportedImageError("not a picture of a known kind (JPEG, PNG, WebP or BMP)")
    try:
        width, height, exif, many_scans = _FACTS[kind](data)
    except struct.error:
        raise DamagedImageError(f"the header of the {kind.upper()} picture is cut off") from None
    if width < 1 or height < 1:
        raise DamagedImageError(f"the header of the {kind.upper()} picture announces {width}×{height} pixels")
    orientation = exif_orientation(exif)
    if orientation >= 5:
        width, height = height, width
    return ImageHeader(kind=kind, width=width, height=height, orientation=orientation, many_scans=many_scans)


def sniff_image(head: bytes) -> ImageKind | None:
    """Return the kind that the first 32 bytes announce, or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return ImageKind.JPEG
    if head.startswith(_PNG_SIGNATURE):
        return ImageKind.PNG
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ImageKind.WEBP
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return ImageKind.BMP
    return None


def is_complete(data: bytes, kind: ImageKind) -> bool:
    """Return whether the file reaches the end that its kind prescribes; a part of it must not be decoded.

    Bytes behind the end (a second picture, a camera's trailer) do not matter, and the end marker of a
    thumbnail inside the EXIF block does not count. WebP and BMP are left to the decoder.
    """
    try:
        if kind is ImageKind.JPEG:
            return any(marker == _EOI for marker, _, _ in _jpeg_segments(data))
        if kind is ImageKind.PNG:
            return _reaches_iend(data)
    except struct.error:
        return False
    return True


def bare_png(data: bytes) -> bytes:
    """Return a complete PNG with nothing but what its pixels need: no animation, text or colour profile.

    The picture stays the same, while a decoder meets less that is hostile: OpenCV 5.0 crashes on animation
    chunks that contradict the picture, and unpacks compressed texts whatever their size.
    """
    view = memoryview(data)
    kept = [
        view[start - 8 : end + 4]
        for name, start, end in islice(_png_chunks(data), _MAX_CHUNKS)
        if name in _PIXEL_CHUNKS
    ]
    return b"".join([_PNG_SIGNATURE, *kept])


def first_of_webp(data: bytes) -> bytes:
    """Return a WebP that ends with the first picture of its animation; a still one as it is.

    A decoder would compose all pictures of an animation on its canvas, and a kilobyte holds hundreds.

    Raises:
        DamagedImageError: other parts stand before the first picture, more than any program writes.
    """
    whole_bytes = int.from_bytes(data[4:8], "little") + 8
    if data[12:16] != b"VP8X" or whole_bytes > len(data):
        return data
    chunks = list(islice(_webp_chunks(data), _MAX_CHUNKS))
    ends = (end + end % 2 for name, _, end in chunks if name == b"ANMF")
    end = next(ends, None)
    if end is None:
        if len(chunks) == _MAX_CHUNKS:
            raise DamagedImageError("the WebP picture has more parts than any camera or program writes")
        return data
    return b"".join([b"RIFF", struct.pack("<I", end - 8), data[8:end]])


def longer_jpeg(data: bytes) -> bytes:
    """Return a complete JPEG with more data than it had before its end.

    A decoder passes over it, unless data was missing: then it gives another picture.
    """
    end = next(start for marker, start, _ in _jpeg_segments(data) if marker == _EOI)
    return b"".join([data[:end].rstrip(b"\xff"), _MORE_DATA, data[end:]])


def exif_orientation(exif: bytes) -> int:
    """Return the orientation 1..8 of an EXIF block; 1 when it holds none, or nonsense."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (num_entries,) = struct.unpack_from(order + "H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * num_entries, 12):
            tag, field_type = struct.unpack_from(order + "HH", exif, entry)
            if tag == _ORIENTATION_TAG:
                field = "I" if field_type == _EXIF_LONG else "H"
                (value,) = struct.unpack_from(order + field, exif, entry + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


_Facts = tuple[int, int, bytes, bool]
"""Stored width, stored height, EXIF block, and whether a JPEG has many scans."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_BMP_HEADER_SIZES = {12, 40, 52, 56, 64, 108, 124}
_ORIENTATION_TAG = 0x0112
_EXIF_LONG = 4
_EXIF_PREFIX = b"Exif\0\0"

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""The next marker that carries a segment, or the end: skips entropy-coded data, restarts, fill and junk."""
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
_FRAME_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = {0xC0, 0xC1}

_MAX_SEGMENTS = 10_000
_MAX_SCANS = 100
"""Far more than any encoder writes; every scan of a progressive picture costs a pass over all pixels."""
_MAX_CHUNKS = 100_000
_MORE_DATA = bytes(number * 83 % 255 for number in range(1, 1024))
"""All kinds of bits, but no marker."""


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of the payload of every segment; last the end marker's own, if any."""
    position, num_scans = 2, 0
    for _ in range(_MAX_SEGMENTS):
        match = _MARKER.search(data, position)
        if match is None:
            return
        marker, start = data[match.end() - 1], match.end() + 2
        if marker == _EOI:
            yield marker, match.start(), match.end()
            return
        (length,) = struct.unpack_from(">H", data, match.end())
        position = match.end() + length
        num_scans += marker == _SOS
        if num_scans > _MAX_SCANS:
            break
        yield marker, start, position
    raise DamagedImageError("the JPEG picture has more parts than any camera or program writes")


def _jpeg_facts(data: bytes) -> _Facts:
    frame, exif, many_scans = None, b"", False
    for marker, start, end in _jpeg_segments(data):
        payload = data[start:end]
        if marker in (_SOS, _EOI):
            num_in_scan = payload[0] if payload else 0
            many_scans = many_scans or (frame is not None and num_in_scan < frame[2])
            break
        if marker in _FRAME_MARKERS and frame is None:
            frame = struct.unpack_from(">HHB", payload, 1)
            many_scans = marker not in _SEQUENTIAL
        elif marker == _APP1 and not exif and payload.startswith(_EXIF_PREFIX):
            exif = payload.removeprefix(_EXIF_PREFIX)
    if frame is None:
        raise DamagedImageError("the JPEG picture has no frame")
    height, width, _ = frame
    return width, height, exif, many_scans


def _png_facts(data: bytes) -> _Facts:
    kind, width, height = struct.unpack_from(">4sII", data, len(_PNG_SIGNATURE) + 4)
    if kind != b"IHDR":
        raise DamagedImageError("the PNG picture does not begin with its header")
    return width, height, _payload_of(b"eXIf", data, _png_chunks(data)), False


def _webp_facts(data: bytes) -> _Facts:
    kind = data[12:16]
    exif = _payload_of(b"EXIF", data, _webp_chunks(data)).removeprefix(_EXIF_PREFIX)
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        return (low_width | high_width << 16) + 1, (low_height | high_height << 16) + 1, exif, False
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, exif, False
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF, exif, False
    raise DamagedImageError("the WebP picture does not begin with a frame")


def _bmp_facts(data: bytes) -> _Facts:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return width, abs(height), b"", False


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    position = len(_PNG_SIGNATURE)
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        yield name, position + 8, position + 8 + length
        position += 12 + length


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    position = 12
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        yield name, position + 8, position + 8 + length
        position += 8 + length + length % 2


def _payload_of(wanted: bytes, data: bytes, chunks: Iterator[tuple[bytes, int, int]]) -> bytes:
    """Return the payload of the first chunk of that name, or nothing."""
    for name, start, end in islice(chunks, _MAX_CHUNKS):
        if name == wanted:
            return data[start:end]
    return b""


def _reaches_iend(data: bytes) -> bool:
    """A decoder would reserve memory for whatever length a chunk claims, so all of it must be there."""
    for name, _, end in islice(_png_chunks(data), _MAX_CHUNKS):
        if end + 4 > len(data) or name == b"IEND":
            return end + 4 <= len(data)
    return False


_FACTS: dict[ImageKind, Callable[[bytes], _Facts]] = {
    ImageKind.JPEG: _jpeg_facts,
    ImageKind.PNG: _png_facts,
    ImageKind.WEBP: _webp_facts,
    ImageKind.BMP: _bmp_facts,
}
"""Reads the facts of each kind."""
