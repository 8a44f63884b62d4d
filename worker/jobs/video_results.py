"""The files that a job makes of a video, written frame by frame: lines, and a video with boxes drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from app.videos.files import KINDS, VideoFile
from app.videos.lines import FoundBox, frame_line, head_line
from detection.detections import Detections
from detection.inference.predictor import Prediction
from detection.video.annotate import add_annotated
from detection.video.reader import Frame, VideoFacts
from detection.video.writer import VideoFileWriter

SHOWN_PARAMETERS = ("score_threshold", "nms_iou", "max_detections", "classes", "every")


class VideoResults:
    """Takes frames with their detections in order, from one thread; a context manager."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._classes, self._stack = classes, ExitStack()
        self._paths = {name: folder / f"{name}.{kind.suffix}" for name, kind in KINDS.items()}
        self._lines = self._stack.enter_context(self._paths[VideoFile.DETECTIONS].open("xb"))
        self._video: VideoFileWriter | None = None
        self.num_frames = self.num_detections = 0
        self.last_s = 0.0
        """When the last frame is seen."""

    def __enter__(self) -> VideoResults:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def begin(self, model_id: str, config: Mapping[str, Any], facts: VideoFacts) -> None:
        """Write the first line, and begin the video if one is wanted."""
        parameters = {name: config[name] for name in SHOWN_PARAMETERS}
        self._lines.write(
            head_line(
                model_id,
                parameters,
                width=facts.width,
                height=facts.height,
                fps=facts.fps,
                announced_frames=facts.num_frames,
            )
        )
        if config["annotate"]:
            video = VideoFileWriter(
                self._paths[VideoFile.VIDEO],
                fps=facts.fps / config["every"],
                size_wh=(facts.width, facts.height),
            )
            self._video = self._stack.enter_context(video)

    def add(self, seen: tuple[Frame, Prediction]) -> int:
        """Write one frame; return how many are written."""
        frame, prediction = seen
        boxes = _boxes(prediction.detections)
        self._lines.write(
            frame_line(
                frame.number,
                frame.time_s,
                size_wh=(prediction.width, prediction.height),
                boxes=boxes,
                classes=self._classes,
            )
        )
        if self._video is not None:
            add_annotated(self._video, frame, prediction.detections, self._classes)
        self.num_frames += 1
        self.num_detections += len(boxes)
        self.last_s = frame.time_s
        return self.num_frames

    def finish(self) -> dict[VideoFile, Path]:
        """Close the files; return those that there are."""
        self._lines.close()
        if self._video is None:
            return {VideoFile.DETECTIONS: self._paths[VideoFile.DETECTIONS]}
        self._video.finish()
        return self._paths


def _boxes(detections: Detections) -> list[FoundBox]:
    return list(
        zip(
            detections.boxes_N4.tolist(),
            detections.scores_N.tolist(),
            detections.labels_N.tolist(),
            strict=True,
        )
    )
