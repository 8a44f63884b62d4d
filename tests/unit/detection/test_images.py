"""Pictures come out upright and whole, or not at all."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from detection.errors import DamagedImageError, ImageError, ImageTooLargeError, UnsupportedImageError
from detection.image_headers import ImageKind, bare_png, first_of_webp, longer_jpeg
from detection.images import (
    Pixels,
    check_header,
    decode_image,
    decoding_bytes,
    encode_jpeg,
    read_header,
    sniff_image,
)
from tests import pictures

ENCODERS = {
    ImageKind.JPEG: pictures.jpeg,
    ImageKind.PNG: pictures.png,
    ImageKind.WEBP: pictures.webp,
    ImageKind.BMP: pictures.bmp,
}
PICTURE = pictures.noise(120, 80)
SMALL = pictures.noise(24, 16)
NUM_PIXELS = 120 * 80
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


def test_of_an_animated_webp_the_decoder_meets_the_first_picture_alone() -> None:
    frames = [pictures.noise(32, 16, seed) for seed in range(3)]
    data = pictures.animated_webp(frames)
    first = first_of_webp(data)

    assert (data.count(b"ANMF"), first.count(b"ANMF")) == (3, 1)
    assert int.from_bytes(first[4:8], "little") == len(first) - 8
    np.testing.assert_array_equal(decode_image(data).pixels, decode_image(first).pixels)
    assert decode_image(pictures.animated_webp(frames, canvas_wh=(100, 50))).size_wh == (100, 50)
    with pytest.raises(DamagedImageError, match="cannot be decoded"):
        decode_image(data[:-20])


def test_a_still_webp_stays_as_it_is() -> None:
    for data in (pictures.webp(SMALL), pictures.webp(SMALL, orientation=6)):
        assert first_of_webp(data) == data


def test_a_webp_whose_first_picture_is_nowhere_near_is_refused() -> None:
    data = pictures.animated_webp([pictures.noise(32, 16, seed) for seed in range(2)])
    junk = (b"JUNK" + bytes(4)) * 100_000
    size = struct.pack("<I", len(data) - 8 + len(junk))
    with pytest.raises(DamagedImageError, match="more parts"):
        decode_image(b"RIFF" + size + data[8:30] + junk + data[30:])


def _encoded_jpeg(pixels: Pixels, option: int, value: int) -> bytes:
    return cv2.imencode(".jpg", pixels, [option, value])[1].tobytes()


def _cut_and_closed(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\xff\xd9"


def _announcing(width: int, height: int, data: bytes) -> bytes:
    frame = data.index(b"\xff\xc0") + 5
    return data[:frame] + struct.pack(">HH", height, width) + data[frame + 4 :] + bytes(width * height // 250)


@pytest.mark.parametrize("input_size_hw", [None, (50, 50), (1, 1)], ids=["whole", "a quarter", "an eighth"])
@pytest.mark.parametrize(
    "data",
    [
        _cut_and_closed(pictures.jpeg(pictures.noise(300, 200))),
        _cut_and_closed(pictures.jpeg(pictures.noise(300, 200)[..., 0])),
        _cut_and_closed(pictures.jpeg(pictures.noise(300, 200), orientation=3)),
        _cut_and_closed(_encoded_jpeg(pictures.noise(300, 200), cv2.IMWRITE_JPEG_RST_INTERVAL, 4)),
        _announcing(1000, 999, pictures.jpeg(pictures.noise(64, 64))),
    ],
    ids=["colours", "grey", "turned", "restarts", "announcing"],
)
def test_a_jpeg_whose_data_ends_early_is_damage(data: bytes, input_size_hw: tuple[int, int] | None) -> None:
    with pytest.raises(DamagedImageError, match="data ends before its last pixel"):
        decode_image(data, input_size_hw=input_size_hw)


def test_more_data_changes_no_whole_jpeg() -> None:
    picture = pictures.jpeg(PICTURE)
    filled = picture[:-2] + b"\xff\xff\xff\xd9" + picture
    np.testing.assert_array_equal(decode_image(longer_jpeg(filled)).pixels, decode_image(picture).pixels)


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_that_ends_in_grey_is_whole(progressive: int) -> None:
    pixels = pictures.noise(64, 48)
    pixels[16:] = 128
    for picture in (pixels, np.full_like(pixels, 128)):
        data = _encoded_jpeg(picture, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
        decoded = decode_image(data).pixels
        assert decoded[-1, -1].tolist() == [128, 128, 128]


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


def png_announcing(width: int, height: int, *, depth: int = 8, colour: int = 2) -> bytes:
    return pictures.png_header(width, height, depth=depth, colour=colour) + pictures.png(SMALL)[33:]


def jpeg_announcing(width: int, height: int) -> bytes:
    data = pictures.jpeg(SMALL)
    frame = data.index(b"\xff\xc0") + 5
    return data[:frame] + struct.pack(">HH", height, width) + data[frame + 4 :]


def bmp_announcing(width: int, height: int) -> bytes:
    data = pictures.bmp(SMALL)
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def lossless_webp_announcing(width: int, height: int) -> bytes:
    data = pictures.webp(SMALL)
    bits = data.index(b"VP8L") + 9
    return data[:bits] + struct.pack("<I", width - 1 | height - 1 << 14) + data[bits + 4 :]


def lossy_webp_announcing(width: int, height: int) -> bytes:
    data = cv2.imencode(".webp", SMALL, [cv2.IMWRITE_WEBP_QUALITY, 50])[1].tobytes()
    return data[:26] + struct.pack("<HH", width, height) + data[30:]


def canvas_announcing(width: int, height: int) -> bytes:
    data = pictures.webp(SMALL, orientation=1)
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return data[:24] + size + data[30:]


LIARS = [
    png_announcing,
    jpeg_announcing,
    bmp_announcing,
    lossless_webp_announcing,
    lossy_webp_announcing,
    canvas_announcing,
]


@pytest.mark.parametrize("announcing", LIARS)
def test_far_less_data_than_the_header_announces_is_damage(announcing: Callable[[int, int], bytes]) -> None:
    assert decode_image(announcing(24, 16)).size_wh == (24, 16)
    for size in ((2400, 1600), (9999, 9999)):
        with pytest.raises(DamagedImageError):
            decode_image(announcing(*size))


@pytest.mark.parametrize("announcing", [png_announcing, jpeg_announcing, bmp_announcing])
def test_sizes_beyond_the_limit_are_never_decoded(announcing: Callable[[int, int], bytes]) -> None:
    with pytest.raises(ImageTooLargeError):
        decode_image(announcing(65_535, 65_535))


@pytest.mark.parametrize("announcing", LIARS)
@pytest.mark.parametrize("size", [(10, 10), (24, 8), (8, 16), (24, 17), (25, 16), (1, 1), (16, 24)])
def test_a_header_that_lies_a_little_is_damage_or_is_believed(
    announcing: Callable[[int, int], bytes], size: tuple[int, int]
) -> None:
    """Not every decoder can tell; what must never happen is a picture of another size, or a crash."""
    with suppress(DamagedImageError):
        assert decode_image(announcing(*size)).size_wh == size


@pytest.mark.parametrize(
    "data",
    [
        pictures.png_header(10, 10) + pictures.png(SMALL)[8:],
        pictures.png_header(100, 100) + pictures.png(SMALL)[8:],
        pictures.png(SMALL)[:33] + pictures.png_header(10, 10)[8:] + pictures.png(SMALL)[33:],
        pictures.png(SMALL)[:-12] + pictures.png_header(10, 10)[8:] + pictures.png(SMALL)[-12:],
        png_announcing(24, 16, depth=16),
        png_announcing(24, 16, colour=0),
        png_announcing(24, 16, colour=6),
        png_announcing(24, 16, depth=3),
    ],
    ids=["first 10", "first 100", "second", "behind the data", "16 bit", "grey", "alpha", "3 bit"],
)
def test_png_headers_that_contradict_the_data_are_damage(data: bytes) -> None:
    with pytest.raises(DamagedImageError):
        decode_image(data)


def test_two_frames_of_a_jpeg_are_damage() -> None:
    data = pictures.jpeg(SMALL)
    start = data.index(b"\xff\xc0")
    (length,) = struct.unpack_from(">H", data, start + 2)
    other = data[start : start + 5] + struct.pack(">HH", 100, 100) + data[start + 9 : start + 2 + length]
    with pytest.raises(DamagedImageError):
        decode_image(data[:start] + other + data[start:])


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_picture_is_turned_like_the_full_one(orientation: int) -> None:
    data = pictures.jpeg(pictures.quadrants(320, 192), orientation=orientation)

    full, reduced = decode_image(data), decode_image(data, input_size_hw=(40, 40))

    assert reduced.size_wh == full.size_wh
    assert reduced.pixels.shape[0] * 4 == full.pixels.shape[0]
    np.testing.assert_allclose(quarters(reduced.pixels), quarters(full.pixels), atol=3)


def quarters(pixels: Pixels) -> Pixels:
    """Return the pixel in the middle of each quarter."""
    height, width = pixels.shape[:2]
    return pixels[height // 4 :: height // 2, width // 4 :: width // 2].astype(np.int16)


def progressive(pixels: Pixels) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (pictures.jpeg(PICTURE), 3 * NUM_PIXELS),
        (pictures.jpeg(PICTURE, orientation=3), 6 * NUM_PIXELS),
        (progressive(PICTURE), 9 * NUM_PIXELS),
        (pictures.png(PICTURE), 6 * NUM_PIXELS),
        (pictures.webp(PICTURE), 6 * NUM_PIXELS),
        (pictures.bmp(PICTURE), 3 * NUM_PIXELS),
    ],
    ids=["jpeg", "turned jpeg", "progressive jpeg", "png", "webp", "bmp"],
)
def test_memory_for_decoding_shows_in_the_header(data: bytes, expected: int) -> None:
    assert decoding_bytes(check_header(data)) == expected


def test_memory_for_a_reduced_jpeg_is_small_when_it_can_be_read_in_one_go() -> None:
    once, often = pictures.jpeg(PICTURE), progressive(PICTURE)
    reduced = [decoding_bytes(check_header(data), input_size_hw=(20, 20)) for data in (once, often)]

    assert reduced == [3 * NUM_PIXELS // 16, 3 * NUM_PIXELS // 16 + 6 * NUM_PIXELS]


def test_components_in_scans_of_their_own_are_held_as_a_whole() -> None:
    data = bytearray(pictures.jpeg(PICTURE))
    assert not read_header(bytes(data)).many_scans
    data[data.index(b"\xff\xda") + 4] = 1
    assert read_header(bytes(data)).many_scans


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
