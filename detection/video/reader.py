"""A video file frame by frame: upright, with the times that the container gives, as far as it can be read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from detection.errors import VideoError, VideoTooLargeError
from detection.images import Pixels
from detection.video.kinds import HEAD_BYTES, sniff_video

MOST_FRAME_PIXELS = 36_000_000
"""8K (7680 × 4320) and a little; a decoder holds up to 17 frames at a time."""
MOST_FRAMES = 1_000_000
"""Nine hours at 30 frames a second."""
ASSUMED_FPS = 25.0
"""Where a file does not say how many frames a second has."""
MOST_FPS = 1000.0
"""More is not a frame rate but the clock of the container."""
RESUMES = 64
"""How often in a row reading is tried again behind a fault; at the end of a file each try costs nothing."""
MISSING_SHARE, MISSING_FRAMES = 0.02, 2
"""So much less than announced counts as an early end: containers round, and a sound track may be longer."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a video."""

    number: int
    """The first frame that can be decoded is 0."""
    time_s: float
    """Since the beginning of the video, by the container; never less than that of the frame before."""
    pixels: Pixels
    """Height, width, BGR; turned as the file asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """What a file says about itself; none of it need be true."""

    width: int
    height: int
    """Pixels, as a person sees the frames."""
    fps: float
    """Frames a second, on average."""
    num_frames: int | None
    """None where the file does not say; of Matroska only an estimate."""

    @property
    def duration_s(self) -> float | None:
        return None if self.num_frames is None else self.num_frames / self.fps


@dataclass(frozen=True, slots=True)
class VideoFinding:
    """Something about a video that its reader should know."""

    code: str
    """`frames_damaged`, `ended_early` or `cut_at_limit`."""
    message: str


class VideoReader:
    """An open video file; a context manager. FFmpeg decodes it, as far as OpenCV's build can."""

    def __init__(self, path: Path, *, threads: int | None = None, max_frames: int = MOST_FRAMES) -> None:
        """Open a file and read what it says about itself.

        Args:
            threads: that decode; None is FFmpeg's choice.
            max_frames: what comes after so many frames is not read.

        Raises:
            VideoError: it is no MP4, Matroska or AVI, is damaged, holds no video, or one in a codec that
                cannot be decoded here.
            VideoTooLargeError: it announces larger frames, or more of them, than are read.
        """
        with path.open("rb") as file:
            self.kind = sniff_video(file.read(HEAD_BYTES))
        if self.kind is None:
            raise VideoError("the file is no video of a known kind (MP4, MOV, MKV, WebM or AVI)")
        options = [] if threads is None else [cv2.CAP_PROP_N_THREADS, threads]
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, options)
        if not self._capture.isOpened():
            raise VideoError(
                f"the {self.kind.upper()} file cannot be read: it is damaged or cut off, holds no video, or "
                "one in a codec that this server does not decode"
            )
        self._max_frames = max_frames
        self.facts = self._read_facts()
        self.num_decoded = 0
        """Frames that were decoded, also those that nobody looked at."""
        self._last_s = -math.inf
        self._faults = 0
        self._was_cut = False

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._capture.release()

    def frames(self, *, every: int = 1) -> Iterator[Frame]:
        """Yield the frames 0, `every`, 2·`every`, …, as long as there are any; once per reader.

        What cannot be decoded is passed over and noted, see `findings`.
        """
        while self._advance():
            number, time_s = self.num_decoded - 1, self._time_s()
            if number % every:
                continue
            done, pixels = self._capture.retrieve()
            if done:
                yield Frame(number, time_s, _three_channels(pixels))
            else:
                self._faults += 1

    def findings(self) -> list[VideoFinding]:
        """Return what was noticed, once all frames were read. Damage that a decoder hides is not seen."""
        found = []
        if self._faults:
            found.append(
                VideoFinding(
                    "frames_damaged",
                    f"decoding failed in {self._faults} place{'s' if self._faults > 1 else ''} and went on "
                    "behind; frames are missing there, and are not counted",
                )
            )
        if self._was_cut:
            found.append(
                VideoFinding("cut_at_limit", f"only the first {self._max_frames:,} frames were read")
            )
        elif self._ended_early():
            found.append(
                VideoFinding(
                    "ended_early",
                    f"the file announces {self.facts.duration_s:.2f} s, but its frames could be read up to "
                    f"{self._last_s:.2f} s only: the rest is missing or damaged",
                )
            )
        return found

    def _advance(self) -> bool:
        """Decode the next frame, behind what cannot be decoded; False at the end."""
        if self.num_decoded >= self._max_frames:
            self._was_cut = bool(self._capture.grab())
            return False
        for tried in range(RESUMES):
            if self._capture.grab():
                self._faults += tried > 0
                self.num_decoded += 1
                return True
        return False

    def _time_s(self) -> float:
        """Return the time of the frame just decoded; one that the file lacks goes on from the last."""
        given = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if self.num_decoded == 1:
            time_s = max(given, 0.0) if math.isfinite(given) else 0.0
        else:
            is_later = math.isfinite(given) and given > self._last_s
            time_s = given if is_later else self._last_s + 1 / self.facts.fps
        self._last_s = time_s
        return time_s

    def _ended_early(self) -> bool:
        announced_s, fps = self.facts.duration_s, self.facts.fps
        if announced_s is None or not self.num_decoded:
            return False
        missing_s = announced_s - (self._last_s + 1 / fps)
        return missing_s > max(MISSING_SHARE * announced_s, MISSING_FRAMES / fps)

    def _read_facts(self) -> VideoFacts:
        width, height = (
            int(self._capture.get(each)) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width < 1 or height < 1:
            raise VideoError(f"the file announces frames of {width}×{height} pixels")
        if width * height > MOST_FRAME_PIXELS:
            raise VideoTooLargeError(
                f"the frames have {width}×{height} pixels, more than the {MOST_FRAME_PIXELS:,} allowed"
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        fps = fps if math.isfinite(fps) and 0 < fps <= MOST_FPS else ASSUMED_FPS
        announced = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        num_frames = int(announced) if math.isfinite(announced) and announced >= 1 else None
        if num_frames is not None and num_frames > self._max_frames:
            raise VideoTooLargeError(
                f"the video has {num_frames:,} frames, more than the {self._max_frames:,} allowed; "
                "cut it into parts"
            )
        return VideoFacts(width=width, height=height, fps=fps, num_frames=num_frames)


def _three_channels(pixels: cv2.typing.MatLike) -> Pixels:
    picture = np.asarray(pixels, np.uint8)
    return picture if picture.ndim == 3 else np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), np.uint8)
