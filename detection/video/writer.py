"""A video that browsers play, of frames that come with their times: VP8 in WebM.

OpenCV's build of FFmpeg writes frames at even distances only, so a frame stays until the next one's time has
come, and of several at one moment the first is kept.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from detection.errors import VideoError
from detection.images import Pixels

SUFFIX = ".webm"
CODEC = "VP80"
"""VP9 makes files a third smaller, and takes six times as long; of H.264 there is no encoder."""
LEAST_FPS, MOST_FPS = 1.0, 60.0
"""What players keep up with."""
MOST_SIDE = 1920
"""Larger frames are shrunk: a quarter of the time, and still more than most windows show."""
LONGEST_STILL_S = 60.0
"""A gap in the times that is longer is shortened to this."""


class VideoFileWriter:
    """Writes frames into a file; a context manager. The file is good only after `finish`."""

    def __init__(self, path: Path, *, fps: float, size_wh: tuple[int, int]) -> None:
        """Begin a file.

        Args:
            path: ends with `SUFFIX`.
            fps: of the frames that will come, on average.
            size_wh: of those frames, pixels; `scale` tells how much smaller they are kept.

        Raises:
            VideoError: such a file cannot be written.
        """
        self._path = path
        self.fps = min(max(fps, LEAST_FPS), MOST_FPS)
        self.scale = min(1.0, MOST_SIDE / max(size_wh))
        self._size_wh = _even(round(size_wh[0] * self.scale)), _even(round(size_wh[1] * self.scale))
        fourcc = cv2.VideoWriter.fourcc(*CODEC)
        self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, self.fps, self._size_wh)
        if not self._writer.isOpened():
            raise VideoError(f"a video of {size_wh[0]}×{size_wh[1]} pixels cannot be written here")
        self._last: Pixels | None = None
        self._shortened_s = 0.0
        self.num_written = 0
        """Frames in the file, those that stand for a longer time counted several times."""

    def __enter__(self) -> VideoFileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.release()

    def shrink(self, pixels: Pixels) -> Pixels:
        """Return a frame (height, width, BGR) at the size in which it is kept, to be drawn upon."""
        if (pixels.shape[1], pixels.shape[0]) == self._size_wh:
            return pixels
        height, width = pixels.shape[:2]
        if (_even(width), _even(height)) == self._size_wh:  # the codec has no odd sizes
            right, below = self._size_wh[0] - width, self._size_wh[1] - height
            padded = cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_REPLICATE)
            return np.asarray(padded, np.uint8)
        return np.asarray(cv2.resize(pixels, self._size_wh, interpolation=cv2.INTER_AREA), np.uint8)

    def add(self, pixels: Pixels, time_s: float) -> None:
        """Add a frame as `shrink` returned it, which is seen from `time_s` on; times never go back."""
        place = round((time_s - self._shortened_s) * self.fps)
        longest = self.num_written + round(LONGEST_STILL_S * self.fps)
        if place > longest:
            self._shortened_s += (place - longest) / self.fps
            place = longest
        if place < self.num_written:
            return
        before = pixels if self._last is None else self._last
        while self.num_written < place:
            self._write(before)
        self._write(pixels)
        self._last = pixels

    def finish(self) -> None:
        """Close the file.

        Raises:
            OSError: the file does not hold all that was written, most likely because the disk is full.
        """
        self._writer.release()
        written = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        held = round(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
        written.release()
        # The writer reports no error. The length is what it writes last.
        if abs(held - self.num_written) > 1:
            raise OSError(f"of {self.num_written} frames of the annotated video {held} were written")

    def _write(self, pixels: Pixels) -> None:
        self._writer.write(pixels)
        self.num_written += 1


def _even(side: int) -> int:
    return max(side + side % 2, 2)
