"""Annotated videos: read back, they show what was written when it was to be seen."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.detections import Detections
from detection.images import Pixels
from detection.inference.draw import class_colour
from detection.video.annotate import add_annotated
from detection.video.kinds import VideoKind
from detection.video.reader import Frame, VideoReader
from detection.video.writer import LONGEST_STILL_S, MOST_SIDE, VideoFileWriter
from tests.clips import moving_square


def grey(value: int, width: int = 32, height: int = 32) -> Pixels:
    return np.full((height, width, 3), value, np.uint8)


def read_back(path: Path) -> list[Frame]:
    with VideoReader(path, threads=1) as reader:
        assert reader.kind == VideoKind.MATROSKA
        return list(reader.frames())


def levels(path: Path) -> list[int]:
    return [round(float(frame.pixels.mean()), -1) for frame in read_back(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.webm"


def test_what_is_written_can_be_read(path: Path) -> None:
    frames = moving_square(8)
    with VideoFileWriter(path, fps=10, size_wh=(64, 48)) as writer:
        for number, frame in enumerate(frames):
            writer.add(frame, number / 10)
        writer.finish()
    back = read_back(path)
    assert [round(each.time_s, 3) for each in back] == [number / 10 for number in range(8)]
    for frame, original in zip(back, frames, strict=True):
        assert np.abs(frame.pixels.astype(int) - original).mean() < 12


def test_a_frame_stays_until_the_time_of_the_next(path: Path) -> None:
    with VideoFileWriter(path, fps=10, size_wh=(32, 32)) as writer:
        for value, time_s in ((40, 0.2), (120, 0.3), (200, 0.7), (90, 0.71)):
            writer.add(grey(value), time_s)
        writer.finish()
    assert levels(path) == [40, 40, 40, 120, 120, 120, 120, 200], "the first is there from the beginning"


def test_a_gap_without_end_is_shortened(path: Path) -> None:
    with VideoFileWriter(path, fps=1, size_wh=(32, 32)) as writer:
        for value, time_s in ((40, 0.0), (120, 1e6), (200, 1e6 + 1)):
            writer.add(grey(value), time_s)
        writer.finish()
    assert writer.num_written == 1 + LONGEST_STILL_S + 2
    assert levels(path)[-2:] == [120, 200]


def test_a_rate_that_no_player_keeps_up_with_is_lowered(path: Path) -> None:
    with VideoFileWriter(path, fps=240, size_wh=(32, 32)) as writer:
        for number in range(24):
            writer.add(grey(10 * number), number / 240)
        writer.finish()
    assert (writer.fps, writer.num_written) == (60.0, 7)


def test_odd_sizes_are_filled_up(path: Path) -> None:
    with VideoFileWriter(path, fps=5, size_wh=(33, 1)) as writer:
        writer.add(writer.shrink(grey(80, 33, 1)), 0.0)
        writer.finish()
    assert read_back(path)[0].pixels.shape == (2, 34, 3)


def test_boxes_are_drawn_where_they_are_also_in_a_frame_that_is_shrunk(path: Path) -> None:
    width, height = 2 * MOST_SIDE, MOST_SIDE
    found = Detections(torch.tensor([[400.0, 400.0, 1200.0, 1200.0]]), torch.tensor([0.9]), torch.tensor([1]))
    with VideoFileWriter(path, fps=5, size_wh=(width, height)) as writer:
        add_annotated(writer, Frame(0, 0.0, grey(128, width, height)), found, ("cat", "dog"))
        writer.finish()
    (frame,) = read_back(path)
    assert frame.pixels.shape == (MOST_SIDE // 2, MOST_SIDE, 3)
    colour = np.array(class_colour(1))
    assert np.abs(frame.pixels[600, 400] - colour).max() < 60, "the lower edge, at half its coordinates"
    assert np.abs(frame.pixels[400, 400].astype(int) - 128).max() < 20, "the middle of the box is as it was"


def test_a_file_that_was_not_written_whole_is_an_error(path: Path) -> None:
    with VideoFileWriter(path, fps=10, size_wh=(32, 32)) as writer:
        for number in range(10):
            writer.add(grey(20 * number), number / 10)
        writer.num_written += 5  # as if the disk had taken no more
        with pytest.raises(OSError, match="15 frames of the annotated video 10"):
            writer.finish()


def test_frames_of_another_size_are_fitted(path: Path) -> None:
    with VideoFileWriter(path, fps=10, size_wh=(32, 32)) as writer:
        sizes = [writer.shrink(grey(9, *size)).shape for size in ((32, 32), (64, 48), (31, 32))]
    assert all(first == second for first, second in pairwise(sizes))
