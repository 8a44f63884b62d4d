"""Videos frame by frame: kinds by content, times, rotation, and what is said of damaged ones."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

import detection.video.reader as reader_module
from detection.errors import VideoError, VideoTooLargeError
from detection.video.kinds import VideoKind, sniff_video
from detection.video.reader import Frame, VideoReader
from tests.clips import NUM_FRAMES, clip, moving_square, turned, with_a_huge_frame
from tests.pictures import quadrants

KINDS = {
    "mp4": VideoKind.MP4,
    "mov": VideoKind.MP4,
    "avi": VideoKind.AVI,
    "mkv": VideoKind.MATROSKA,
    "webm": VideoKind.MATROSKA,
}


def read(
    path: Path, data: bytes, *, every: int = 1, max_frames: int = 1000
) -> tuple[VideoReader, list[Frame]]:
    path.write_bytes(data)
    with VideoReader(path, threads=1, max_frames=max_frames) as reader:
        return reader, list(reader.frames(every=every))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file whose name says nothing."""
    return tmp_path / "upload"


@pytest.mark.parametrize("suffix", KINDS)
def test_every_kind_is_known_by_its_content_and_read_whole(path: Path, suffix: str) -> None:
    reader, frames = read(path, clip(suffix))
    assert reader.kind == KINDS[suffix]
    assert (reader.facts.width, reader.facts.height, reader.facts.fps) == (64, 48, 10.0)
    assert reader.facts.num_frames == reader.num_decoded == len(frames) == NUM_FRAMES
    assert [frame.number for frame in frames] == list(range(NUM_FRAMES))
    assert [frame.time_s for frame in frames] == pytest.approx([each / 10 for each in range(NUM_FRAMES)])
    for frame, original in zip(frames, moving_square(), strict=True):
        assert np.abs(frame.pixels.astype(int) - original).mean() < 12
    assert reader.findings() == []


def test_every_nth_frame_keeps_its_number_and_time(path: Path) -> None:
    reader, frames = read(path, clip(), every=4)
    assert [(frame.number, round(frame.time_s, 3)) for frame in frames] == [(0, 0.0), (4, 0.4), (8, 0.8)]
    assert (reader.num_decoded, reader.findings()) == (NUM_FRAMES, [])


def test_frames_are_turned_as_the_file_asks_for(path: Path) -> None:
    reader, frames = read(path, turned(clip("mp4", [quadrants()])))
    assert (reader.facts.width, reader.facts.height) == (48, 64)
    upright = cv2.rotate(quadrants(), cv2.ROTATE_90_CLOCKWISE)
    assert frames[0].pixels.shape == upright.shape
    assert np.abs(frames[0].pixels[8:-8, 8:-8].astype(int) - upright[8:-8, 8:-8]).mean() < 25


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no video at all",
        b"#EXTM3U\nhttp://127.0.0.1/secret.ts\n",
        b"\x00\x00\x00\x20ftypheic" + bytes(40),
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b"\x1a\x45\xdf\xa3" + bytes(600) + b"webm",
    ],
)
def test_what_is_no_video_is_known_by_its_first_bytes(path: Path, data: bytes) -> None:
    assert sniff_video(data) is None
    with pytest.raises(VideoError, match="no video of a known kind"):
        read(path, data)


def test_old_quicktime_files_need_no_brand() -> None:
    assert sniff_video(b"\x00\x00\x10\x00moov" + bytes(20)) is VideoKind.MP4


@pytest.mark.parametrize("kept", [0.1, 0.9])
def test_an_mp4_that_is_cut_off_cannot_be_read(path: Path, kept: float) -> None:
    data = clip("mp4")
    with pytest.raises(VideoError, match="damaged or cut off"):
        read(path, data[: int(len(data) * kept)])


@pytest.mark.parametrize("suffix", ["webm", "avi"])
def test_what_could_be_read_is_kept_and_the_rest_is_a_finding(path: Path, suffix: str) -> None:
    data = clip(suffix, moving_square(20))
    reader, frames = read(path, data[: len(data) * 7 // 10])
    assert 5 < len(frames) < 16
    (finding,) = reader.findings()
    assert finding.code == "ended_early"
    assert "announces 2.00 s" in finding.message
    assert f"up to {frames[-1].time_s:.2f} s" in finding.message


def test_a_header_without_frames_is_no_video(path: Path) -> None:
    data = clip("webm")
    with pytest.raises(VideoError, match="holds no video"):
        read(path, data[: data.index(b"\x1f\x43\xb6\x75")])


def test_more_frames_than_allowed_are_refused_when_announced(path: Path) -> None:
    with pytest.raises(VideoTooLargeError, match="has 10 frames, more than the 9 allowed"):
        read(path, clip(), max_frames=9)


def test_more_frames_than_announced_are_cut(path: Path) -> None:
    data = clip("mkv", moving_square(9))
    path.write_bytes(data)
    with VideoReader(path, threads=1, max_frames=9) as reader:
        reader._max_frames = 4
        assert len(list(reader.frames())) == 4
        assert [each.code for each in reader.findings()] == ["cut_at_limit"]


def test_larger_frames_than_allowed_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "MOST_FRAME_PIXELS", 64 * 48 - 1)
    with pytest.raises(VideoTooLargeError, match="64×48 pixels, more than the 3,071 allowed"):
        read(path, clip())


def test_a_frame_that_announces_far_more_pixels_than_there_are_is_passed_over(path: Path) -> None:
    reader, frames = read(path, with_a_huge_frame(clip("avi")))
    assert [frame.pixels.shape for frame in frames] == [(48, 64, 3)] * (NUM_FRAMES - 1)
    assert [each.code for each in reader.findings()] == ["frames_damaged"]


def test_times_never_go_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without times, or with nonsense in them, goes on at its frame rate."""
    path.write_bytes(clip())
    with VideoReader(path, threads=1) as reader:
        given = iter([-5.0, 100.0, 50.0, float("nan"), 900.0])
        monkeypatch.setattr(reader, "_capture", Clockless(reader._capture, given))
        frames = list(islice(reader.frames(), 5))
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.9])


class Clockless:
    """A capture that gives other times than the file has."""

    def __init__(self, capture: cv2.VideoCapture, times_ms: object) -> None:
        self._capture, self._times_ms = capture, iter(times_ms)  # type: ignore[call-overload]
        self.grab, self.retrieve, self.release = capture.grab, capture.retrieve, capture.release

    def get(self, what: int) -> float:
        return float(next(self._times_ms))


def test_decoding_goes_on_behind_a_fault(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(clip())
    with VideoReader(path, threads=1) as reader:
        real, calls = reader._capture, iter([True, True, False, False, *[True] * 7])
        monkeypatch.setattr(reader, "_capture", Stumbling(real, calls))
        frames = list(reader.frames())
        assert [frame.number for frame in frames] == list(range(NUM_FRAMES))
        assert [each.code for each in reader.findings()] == ["frames_damaged"]


class Stumbling:
    """A capture that loses a frame, as one does whose decoder refuses a packet."""

    def __init__(self, capture: cv2.VideoCapture, answers: object) -> None:
        self._capture, self._answers = capture, iter(answers)  # type: ignore[call-overload]
        self.retrieve, self.release, self.get = capture.retrieve, capture.release, capture.get

    def grab(self) -> bool:
        good = next(self._answers, True)
        return bool(self._capture.grab()) if good else False
