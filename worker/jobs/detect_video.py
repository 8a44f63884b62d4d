"""Detect in a video: frame by frame, in their order; lines and an annotated video are stored at the end.

Nothing is kept of an attempt that was stopped or killed: the next one begins anew, so that no line is missing
and none is there twice. An order to stop ends the process at once.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.storage import folder_of
from app.videos.files import VideoFile, result_key, results_prefix
from detection.data.wording import counted
from detection.durable import sha256_of
from detection.errors import VideoError
from detection.heap import keep_freed_memory
from detection.images import DecodedImage
from detection.inference.in_order import batches_of, map_in_order
from detection.inference.predictor import DetectOptions, Prediction
from detection.training.reporting import ALL_SEEN
from detection.video.kinds import DEMUXERS
from detection.video.reader import Frame, VideoFacts, VideoFinding, VideoReader
from worker.attempt import Attempt
from worker.busy import pulse_while_bytes_move
from worker.fault_points import fault_point
from worker.jobs.device import begin_on_device
from worker.jobs.served import Served, load_served
from worker.jobs.video_results import VideoResults
from worker.pace import Pace

Seen = tuple[Frame, Prediction]

MOST_AHEAD_BYTES = 512 * 1024**2
"""Of frames that are decoded and not written yet, about."""
WRITTEN_AHEAD = 4
SPACE_EVERY = 256
"""Frames between two looks at the disk: OpenCV does not say when it is full."""
FFMPEG = {
    # A file that is read never leads to another one, or to another machine.
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": "|".join(
        ("protocol_whitelist;file", f"format_whitelist;{','.join(DEMUXERS.values())}")
    ),
    # A damaged video is a finding, not a thousand lines.
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
}
"""How OpenCV is told what FFmpeg may do, by the environment, which it looks at for every file."""


def run(attempt: Attempt) -> None:
    keep_freed_memory()  # as the engine does
    os.environ.update(FFMPEG)
    VideoDetection(attempt, load_served(attempt, begin_on_device(attempt))).run()


class VideoDetection:
    """One attempt at one video."""

    def __init__(self, attempt: Attempt, served: Served) -> None:
        self._attempt, self._served = attempt, served
        self._config: Mapping[str, Any] = attempt.job.config
        self._classes = served.record.classes
        self._options = _options(self._config, self._classes)
        self._folder = attempt.scratch / "results"
        self._folder.mkdir()

    def run(self) -> None:
        """Do the job. Between two frames that are looked at there may be thousands: reading is progress."""
        attempt = self._attempt
        upload_key = str(self._config["upload_key"])
        with pulse_while_bytes_move(attempt.control):
            source = attempt.storage.local_path(upload_key, attempt.scratch / "upload")
            attempt.report.stage("detecting")
            result, files = self._look_at(source)
            attempt.report.stage("publishing")
            self._publish(result, files)
        self._clean_up(upload_key)

    def _look_at(self, source: Path) -> tuple[dict[str, Any], dict[VideoFile, Path]]:
        """Return what the job says about the video, and the files that were made of it."""
        with VideoReader(source) as reader, VideoResults(self._folder, self._classes) as results:
            self._say_what_it_is(reader)
            results.begin(self._served.model_id, self._config, reader.facts)
            progress = FrameProgress(self._attempt, reader.facts, self._config["every"])
            for num_done in self._written(reader, results):
                progress.saw(num_done)
                if num_done % SPACE_EVERY == 0:
                    self._check_space()
            if not results.num_frames:
                raise VideoError("no frame of the video can be decoded")
            files, findings = self._finished(results), reader.findings()
        self._say_what_was_found(results, findings)
        result = {
            "frames": results.num_frames,
            "detections": results.num_detections,
            "duration_s": round(results.last_s, 3),
            "findings": [{"code": each.code, "message": each.message} for each in findings],
        }
        return result, files

    def _written(self, reader: VideoReader, results: VideoResults) -> Iterator[int]:
        """Yield how many frames are done, again and again: decoding, looking and writing run side by side."""
        frame_bytes = reader.facts.width * reader.facts.height * 3
        served = self._served
        ahead = min(2 * served.streams, MOST_AHEAD_BYTES // (frame_bytes * served.batch_size))
        with ExitStack() as stack:
            lookers = stack.enter_context(ThreadPoolExecutor(served.streams, "look", served.enter_thread))
            writer = stack.enter_context(ThreadPoolExecutor(1, "write"))
            frames = batches_of(reader.frames(every=self._config["every"]), served.batch_size)
            seen = map_in_order(lookers, self._look, frames, ahead=max(ahead, 1))
            yield from map_in_order(
                writer, results.add, (each for batch in seen for each in batch), ahead=WRITTEN_AHEAD
            )

    def _look(self, frames: list[Frame]) -> list[Seen]:
        pictures = [
            DecodedImage(frame.pixels, frame.pixels.shape[1], frame.pixels.shape[0]) for frame in frames
        ]
        return list(zip(frames, self._served.detect(pictures, self._options), strict=True))

    def _publish(self, result: dict[str, Any], files: Mapping[VideoFile, Path]) -> None:
        attempt = self._attempt
        made: dict[str, dict[str, Any]] = {
            name: {"size_bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for name, path in files.items()
        }
        for name, path in files.items():
            attempt.storage.adopt(result_key(attempt.job.id, attempt.job.fence, name), path)
        stored_bytes = sum(file["size_bytes"] for file in made.values())
        fault_point("video_uncommitted", attempt.job.fence)
        attempt.succeed({**result, "files": made, "stored_bytes": stored_bytes}, _nothing)

    def _clean_up(self, upload_key: str) -> None:
        """Remove the upload, and what earlier attempts have stored; the janitor does it if we cannot."""
        storage, job = self._attempt.storage, self._attempt.job
        storage.delete_all(folder_of(upload_key))
        for fence in range(1, job.fence):
            storage.delete_all(f"{results_prefix(job.id)}{fence}/")

    def _finished(self, results: VideoResults) -> dict[VideoFile, Path]:
        """Return the whole files; one that is not whole is most likely so because the disk is full."""
        try:
            return results.finish()
        except OSError:
            self._check_space()
            raise

    def _check_space(self) -> None:
        if shutil.disk_usage(self._folder).free < self._attempt.settings.min_free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _say_what_it_is(self, reader: VideoReader) -> None:
        facts, served = reader.facts, self._served
        length = "" if facts.num_frames is None else f", {counted(facts.num_frames, 'frame')}"
        self._attempt.report.line(
            f"{reader.kind}: {facts.width}×{facts.height} pixels, {facts.fps:.5g} frames a second{length}; "
            f"{served.executor}, {counted(served.streams, 'stream')}, batches of {served.batch_size}"
        )

    def _say_what_was_found(self, results: VideoResults, findings: list[VideoFinding]) -> None:
        line = self._attempt.report.line
        line(f"{counted(results.num_detections, 'detection')} in {counted(results.num_frames, 'frame')}")
        for each in findings:
            line(f"{each.code}: {each.message}")


class FrameProgress:
    """Shows how many frames are done, of as many as the file announces."""

    def __init__(self, attempt: Attempt, facts: VideoFacts, every: int) -> None:
        self._attempt, self._pace = attempt, Pace()
        self._num_frames = None if facts.num_frames is None else math.ceil(facts.num_frames / every)
        self.saw(0)

    def saw(self, num_frames: int) -> None:
        self._attempt.control.pulse()
        total = self._num_frames
        self._attempt.report.progress(
            {
                "step": num_frames,
                "steps": None if total is None else max(total, num_frames),
                "fraction": None if total is None else ALL_SEEN * min(num_frames / total, 1.0),
            },
            eta_s=None if total is None else self._pace.eta_s(num_frames, max(total - num_frames, 0)),
        )


def _options(config: Mapping[str, Any], classes: tuple[str, ...]) -> DetectOptions:
    wanted = config["classes"]
    return DetectOptions(
        score_threshold=config["score_threshold"],
        nms_iou=config["nms_iou"],
        max_detections=config["max_detections"],
        class_ids=tuple(classes.index(name) for name in wanted) if wanted else None,
    )


def _nothing(session: Session) -> None:
    """The result of the job says all: no rows are added."""
