"""Pictures come out upright and whole, or not at all."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from detection.errors import DamagedImageError, ImageError, ImageTooLargeError, UnsupportedImageError
from detection.image_headers import ImageKind, bare_png
from detection.images import Pixels, decode_image, encode_jpeg, read_header, sniff_image
from tests import pictures

ENCODERS = {
    ImageKind.JPEG: pictures.jpeg,
    ImageKind.PNG: pictures.png,
    ImageKind.WEBP: pictures.webp,
    ImageKind.BMP: pictures.bmp,
}
WITH_ORIENTATION = [ImageKind.JPEG, ImageKind.PNG, ImageKind.WEBP]


def stored_as(upright: Pixels, orientation: int) -> Pixels:
    """Return how a camera that writes this orientation stores an upright picture."""
    undo = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }
    return np.ascontiguousarray(undo[orientation](upright))


@pytest.mark.parametrize("kind", ImageKind)
def test_header_tells_kind_and_size(kind: ImageKind) -> None:
    header = read_header(ENCODERS[kind](pictures.noise(37, 21)))

    assert (header.kind, header.width, header.height, header.orientation) == (kind, 37, 21, 1)


@pytest.mark.parametrize("kind", ImageKind)
def test_pixels_survive(kind: ImageKind) -> None:
    picture = pictures.quadrants()

    decoded = decode_image(ENCODERS[kind](picture))

    assert decoded.size_wh == (64, 48)
    assert np.abs(decoded.pixels.astype(int) - picture).mean() <= (4 if kind is ImageKind.JPEG else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", WITH_ORIENTATION)
def test_every_orientation_is_turned_upright(kind: ImageKind, orientation: int) -> None:
    upright = pictures.quadrants()
    data = ENCODERS[kind](stored_as(upright, orientation), orientation=orientation)

    decoded = decode_image(data)

    assert read_header(data).orientation == orientation
    assert decoded.size_wh == (64, 48)
    assert decoded.pixels.shape == (48, 64, 3)
    assert np.abs(decoded.pixels.astype(int) - upright).mean() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_agrees_with_opencv_for_jpeg(orientation: int) -> None:
    data = pictures.jpeg(pictures.noise(40, 24), orientation=orientation)
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    np.testing.assert_array_equal(decode_image(data).pixels, theirs)


@pytest.mark.parametrize(("order", "field"), [("<", "H"), (">", "H"), ("<", "I"), (">", "I")])
def test_exif_in_both_byte_orders_and_widths(order: str, field: str) -> None:
    data = pictures.jpeg(pictures.noise(16, 8), orientation=6, order=order, field=field)

    assert read_header(data).orientation == 6


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_nonsense_orientation_is_upright(orientation: int) -> None:
    assert read_header(pictures.jpeg(pictures.noise(16, 8), orientation=orientation)).orientation == 1


def test_broken_exif_is_no_exif() -> None:
    data = pictures.jpeg(pictures.noise(16, 8))
    block = b"Exif\0\0" + b"II*\0" + struct.pack("<I", 5_000_000)
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]

    assert read_header(data).orientation == 1
    assert decode_image(data).size_wh == (16, 8)


def test_first_exif_block_counts() -> None:
    inner = pictures.jpeg(pictures.noise(16, 8), orientation=3)
    block = pictures.exif(6, prefix=b"Exif\0\0")
    data = inner[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + inner[2:]

    assert read_header(data).orientation == 6


@pytest.mark.parametrize("kind", ImageKind)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.99])
def test_cut_off_picture_is_an_error(kind: ImageKind, share: float) -> None:
    data = ENCODERS[kind](pictures.noise(64, 48))

    with pytest.raises((DamagedImageError, UnsupportedImageError)):
        decode_image(data[: int(len(data) * share)])


def test_jpeg_without_its_last_two_bytes_is_cut_off() -> None:
    with pytest.raises(DamagedImageError, match="no end"):
        decode_image(pictures.jpeg(pictures.noise(64, 48))[:-2])


def test_jpeg_with_a_zeroed_tail_is_cut_off() -> None:
    data = pictures.jpeg(pictures.noise(64, 48))

    with pytest.raises(DamagedImageError, match="no end"):
        decode_image(data[: len(data) // 2] + bytes(len(data) // 2))


def test_end_of_an_embedded_thumbnail_is_not_the_end() -> None:
    thumbnail = pictures.jpeg(pictures.noise(16, 8))
    data = pictures.jpeg(pictures.noise(64, 48))
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = data[:2] + segment + data[2:]

    assert decode_image(data).size_wh == (64, 48)
    with pytest.raises(DamagedImageError, match="no end"):
        decode_image(data[: len(data) // 2])


def test_trailing_bytes_of_a_camera_do_not_matter() -> None:
    picture = pictures.jpeg(pictures.noise(64, 48))

    assert decode_image(picture + b"SEFT" + bytes(100)).size_wh == (64, 48)
    assert decode_image(picture + picture).size_wh == (64, 48)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"hello", b"GIF89a" + bytes(40), b"<svg/>", b"BM is text " * 9]
)
def test_other_content_is_unsupported(data: bytes) -> None:
    assert sniff_image(data) is None
    with pytest.raises(UnsupportedImageError):
        decode_image(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\xe0",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff" + b"\xe0\x00\x02\xff" * 20_000,
        b"\x89PNG\r\n\x1a\n" + bytes(30),
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x20\0\0\0WEBPVP8X",
        b"RIFF\x20\0\0\0WEBPJUNK" + bytes(30),
        b"BM" + bytes(12) + struct.pack("<Iii", 40, -5, 5) + bytes(30),
        pictures.png_header(0, 5),
    ],
)
def test_broken_header_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedImageError):
        read_header(data)


def test_more_scans_than_any_program_writes_are_refused() -> None:
    data = pictures.jpeg(pictures.noise(16, 8))
    scan = data[data.index(b"\xff\xda") : -2]

    with pytest.raises(DamagedImageError, match="parts"):
        decode_image(data[:-2] + scan * 200 + data[-2:])


def test_png_chunk_that_claims_more_than_the_file_is_refused_before_the_decoder_reserves_it() -> None:
    data = bytearray(pictures.png(pictures.noise(24, 16)))
    position = data.index(b"IDAT") - 4
    data[position : position + 4] = struct.pack(">I", 3_000_000_000)

    with pytest.raises(DamagedImageError, match="cut off"):
        decode_image(bytes(data))


def test_decoder_never_meets_what_a_png_does_not_need() -> None:
    """OpenCV 5.0 crashes on frames that lie outside of the picture, and unpacks any text."""
    picture = pictures.noise(24, 16)
    data = pictures.png(picture)
    frame = struct.pack(">IIIIIHHBB", 0, 60_000, 60_000, 50_000, 50_000, 1, 1, 2, 1)
    extra = pictures.png_chunk(b"acTL", struct.pack(">II", 2, 0)) + pictures.png_chunk(b"fcTL", frame)
    extra += pictures.png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**6)))
    animated = data[:33] + extra + data[33:-12] + pictures.png_chunk(b"fdAT", bytes(40)) + data[-12:]

    assert bare_png(animated) == bare_png(data)
    np.testing.assert_array_equal(decode_image(animated).pixels, picture)


def test_webp_sizes_of_all_three_layouts() -> None:
    lossy = cv2.imencode(".webp", pictures.noise(33, 19), [cv2.IMWRITE_WEBP_QUALITY, 50])[1].tobytes()
    assert b"VP8 " in lossy[:16]
    lossless = pictures.webp(pictures.noise(33, 19))
    assert b"VP8L" in lossless[:16]
    extended = pictures.webp(pictures.noise(33, 19), orientation=1)

    sizes = [(header.width, header.height) for header in map(read_header, (lossy, lossless, extended))]

    assert sizes == [(33, 19)] * 3


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (65_535, 65_535), (2**31 - 1, 1)])
def test_bomb_is_refused_from_its_header(width: int, height: int) -> None:
    with pytest.raises(ImageTooLargeError, match=f"{width}×{height}"):
        decode_image(pictures.png_header(width, height))


def test_limit_is_on_pixels() -> None:
    data = pictures.png(pictures.noise(10, 10))

    assert decode_image(data, max_pixels=100).size_wh == (10, 10)
    with pytest.raises(ImageTooLargeError):
        decode_image(data, max_pixels=99)


def test_header_that_lies_about_the_size_is_damage() -> None:
    data = bytearray(pictures.webp(pictures.noise(33, 19), orientation=1))
    data[24] += 7

    with pytest.raises(DamagedImageError):
        decode_image(bytes(data))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 20_000), (20_000, 1)])
def test_extreme_shapes(width: int, height: int) -> None:
    decoded = decode_image(pictures.jpeg(pictures.noise(width, height)), input_size_hw=(416, 416))

    assert decoded.size_wh == (width, height)
    assert decoded.pixels.shape == (height, width, 3)


@pytest.mark.parametrize(
    ("size_wh", "input_size_hw", "expected_hw"),
    [
        ((640, 480), (416, 416), (480, 640)),
        ((832, 832), (416, 416), (416, 416)),
        ((1801, 1203), (300, 300), (301, 451)),
        ((1801, 1203), (64, 64), (151, 226)),
        ((1801, 1203), (64, 900), (602, 901)),
        ((1801, 300), (64, 64), (75, 451)),
    ],
)
def test_large_jpeg_is_reduced_but_never_below_the_input(
    size_wh: tuple[int, int], input_size_hw: tuple[int, int], expected_hw: tuple[int, int]
) -> None:
    decoded = decode_image(pictures.jpeg(pictures.noise(*size_wh)), input_size_hw=input_size_hw)

    assert decoded.size_wh == size_wh
    assert decoded.pixels.shape[:2] == expected_hw


def test_reduction_follows_the_upright_picture() -> None:
    data = pictures.jpeg(pictures.noise(400, 200), orientation=6)

    decoded = decode_image(data, input_size_hw=(200, 100))

    assert decoded.size_wh == (200, 400)
    assert decoded.pixels.shape[:2] == (200, 100)


@pytest.mark.parametrize(
    "pixels",
    [
        pictures.noise(20, 10)[:, :, 0],
        np.dstack([pictures.noise(20, 10), pictures.noise(20, 10)[:, :, :1]]),
        pictures.noise(20, 10).astype(np.uint16) * 257,
    ],
    ids=["grey", "alpha", "16-bit"],
)
def test_other_depths_and_channels_become_bgr(pixels: Pixels) -> None:
    decoded = decode_image(cv2.imencode(".png", pixels)[1].tobytes())

    assert decoded.pixels.shape == (10, 20, 3)
    assert decoded.pixels.dtype == np.uint8


def test_encoded_jpeg_is_a_jpeg() -> None:
    data = encode_jpeg(pictures.quadrants(), quality=50)

    assert read_header(data).kind is ImageKind.JPEG
    assert len(data) < len(encode_jpeg(pictures.quadrants(), quality=100))


def test_random_changes_of_a_picture_never_crash() -> None:
    rng = np.random.default_rng(0)
    for encode in ENCODERS.values():
        original = encode(pictures.noise(24, 16))
        for _ in range(300):
            data = bytearray(original)
            for position in rng.integers(0, min(len(data), 200), 3):
                data[position] = rng.integers(256)
            try:
                decoded = decode_image(bytes(data), max_pixels=10_000)
            except ImageError:
                continue
            assert decoded.pixels.ndim == 3


@pytest.mark.reference
def test_awkward_images(reference: Path) -> None:
    outcomes: Counter[str] = Counter()
    with zipfile.ZipFile(reference / "photos" / "awkward-images.zip") as archive:
        for name in archive.namelist():
            if name.startswith("LICENSE"):
                continue
            try:
                decode_image(archive.read(name))
                outcomes["decoded"] += 1
            except ImageError as error:
                outcomes[type(error).__name__] += 1

    assert outcomes == {
        "decoded": 45,
        "UnsupportedImageError": 17,
        "DamagedImageError": 9,
        "ImageTooLargeError": 2,
    }


@pytest.mark.reference
def test_turned_twins_are_the_same_picture(reference: Path) -> None:
    with zipfile.ZipFile(reference / "photos" / "awkward-images.zip") as archive:
        hopper = decode_image(archive.read("hopper.jpg")).pixels.astype(int)
        twins = [f"hopper_orientation_{n}.jpg" for n in range(2, 9)] + ["hopper_orientation_6.webp"]
        for name in twins:
            twin = decode_image(archive.read(name)).pixels
            assert np.abs(hopper - twin).mean() < 6, name
        landscape = decode_image(archive.read("Landscape_1.jpg")).pixels.astype(int)
        for number in (3, 5, 6):
            twin = decode_image(archive.read(f"Landscape_{number}.jpg")).pixels
            assert np.abs(landscape - twin).mean() < 6, number
        assert decode_image(archive.read("Portrait_8.jpg")).size_wh == (1200, 1800)
