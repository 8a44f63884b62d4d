"""Videos made in the test itself: a bright square that moves over a dark ground, and ways to break them."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from detection.images import Pixels

CODECS = {"mp4": "mp4v", "mov": "mp4v", "avi": "MJPG", "mkv": "VP80", "webm": "VP80"}
SIZE_WH, FPS, NUM_FRAMES = (64, 48), 10.0, 10
QUARTER_TURN = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
"""The display matrix of a phone that was held upright."""


def moving_square(num_frames: int = NUM_FRAMES, size_wh: tuple[int, int] = SIZE_WH) -> list[Pixels]:
    """Return frames in which a red square of 16 pixels moves 4 pixels to the right each time."""
    frames = []
    for number in range(num_frames):
        frame = np.full((size_wh[1], size_wh[0], 3), 30, np.uint8)
        left = 4 * number % (size_wh[0] - 16)
        frame[8:24, left : left + 16] = (40, 40, 230)
        frames.append(frame)
    return frames


def clip(suffix: str = "mp4", frames: Sequence[Pixels] | None = None, *, fps: float = FPS) -> bytes:
    """Return a video file of this kind."""
    frames = moving_square() if frames is None else frames
    height, width = frames[0].shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clip.{suffix}"
        fourcc = cv2.VideoWriter.fourcc(*CODECS[suffix])
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, fps, (width, height))
        assert writer.isOpened()
        for frame in frames:
            writer.write(frame)
        writer.release()
        return path.read_bytes()


def turned(mp4: bytes) -> bytes:
    """Return an MP4 whose header says that its frames are to be turned by 90 degrees."""
    place = mp4.index(b"tkhd") + 44  # version, times, ids, layer and volume stand before the matrix
    return mp4[:place] + struct.pack(">9i", *QUARTER_TURN) + mp4[place + 36 :]


def with_a_huge_frame(avi: bytes) -> bytes:
    """Return an AVI whose first JPEG frame announces 3.6 gigapixels."""
    place = avi.index(b"\xff\xc0") + 5
    return avi[:place] + struct.pack(">HH", 60_000, 60_000) + avi[place + 4 :]
