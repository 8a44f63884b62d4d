"""What a video becomes, in this process: its lines, its annotated video, and what the job says about them."""

from __future__ import annotations

import errno
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from sqlalchemy import select, update

from app.database.tables import Job, Model, ModelFile
from app.jobs.states import JobKind
from app.videos.files import VideoFile, result_key
from detection.errors import VideoError, WeightsError
from detection.images import DecodedImage
from detection.inference.predictor import DetectOptions, Predictor
from detection.model_files import ONNX_FILE, RECORD_FILE, encode_record
from detection.video.reader import VideoFacts, VideoReader
from detection.video.writer import VideoFileWriter
from tests.clips import FPS, NUM_FRAMES, SIZE_WH, clip, moving_square
from tests.published import CLASSES, RECORD, add_model, tiny_graph
from tests.unit.worker.conftest import OpenAttempt
from worker.attempt import Attempt
from worker.context import WorkerContext
from worker.failures import is_disk_full
from worker.jobs import detect_video
from worker.jobs.served import Served, load_served

THRESHOLD = 0.45
CONFIG = {
    "model_id": "m1",
    "score_threshold": THRESHOLD,
    "nms_iou": None,
    "max_detections": 5,
    "classes": [],
    "every": 1,
    "annotate": True,
    "device": "cpu",
}


class Made(NamedTuple):
    job: Job
    head: dict[str, Any]
    frames: list[dict[str, Any]]


Watch = Callable[..., Made]


@pytest.fixture
def attempt_at(
    open_attempt: OpenAttempt, context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Attempt]:
    """Return a function that begins a job on a video, as the API queues it."""
    for name, value in detect_video.FFMPEG.items():
        monkeypatch.setenv(name, value)

    def begun(video: bytes, **changes: Any) -> Attempt:
        add_model(context.settings)
        context.storage.write("uploads/v/video", io.BytesIO(video))
        config = {**CONFIG, "upload_key": "uploads/v/video", **changes}
        return open_attempt(JobKind.DETECT_VIDEO, config=config, model_id="m1")

    return begun


@pytest.fixture
def watch(attempt_at: Callable[..., Attempt], context: WorkerContext) -> Watch:
    """Return a function that does the whole job and reads what it made."""

    def watched(video: bytes, **changes: Any) -> Made:
        attempt = attempt_at(video, **changes)
        detect_video.run(attempt)
        with context.sessions() as session:
            job = session.scalars(select(Job)).one()
        head, *frames = lines_of(context, job)
        return Made(job, head, frames)

    return watched


def stored(context: WorkerContext, job: Job, name: VideoFile) -> bytes:
    with context.storage.open(result_key(job.id, job.fence, name)) as file:
        return file.read()


def lines_of(context: WorkerContext, job: Job) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stored(context, job, VideoFile.DETECTIONS).splitlines()]


def test_every_frame_has_one_line_with_what_the_model_sees_in_it(watch: Watch, tmp_path: Path) -> None:
    made = watch(clip())
    shown = {
        name: CONFIG[name] for name in ("score_threshold", "nms_iou", "max_detections", "classes", "every")
    }
    assert made.head == {
        "model": "m1",
        "parameters": shown,
        "width": 64,
        "height": 48,
        "fps": FPS,
        "announced_frames": NUM_FRAMES,
    }
    assert [(line["frame"], line["time_s"]) for line in made.frames] == [
        (number, number / 10) for number in range(NUM_FRAMES)
    ]
    assert {(line["width"], line["height"]) for line in made.frames} == {SIZE_WH}
    assert [line["detections"] for line in made.frames] == seen_alone(tmp_path, clip())
    assert any(line["detections"] for line in made.frames)
    assert made.job.progress == {"step": NUM_FRAMES, "steps": NUM_FRAMES, "fraction": 1.0}


def seen_alone(tmp_path: Path, video: bytes) -> list[list[dict[str, Any]]]:
    """Return what the model says of each frame, without jobs, threads or files."""
    folder = tmp_path / "alone"
    folder.mkdir()
    (folder / ONNX_FILE).write_bytes(tiny_graph())
    (folder / RECORD_FILE).write_bytes(encode_record(RECORD))
    (folder / "video").write_bytes(video)
    predictor = Predictor.from_folder(folder, backend="onnxruntime", threads=1)
    options = DetectOptions(score_threshold=THRESHOLD, max_detections=5)
    found = []
    with VideoReader(folder / "video", threads=1) as reader:
        for frame in reader.frames():
            prepared = predictor.prepare(DecodedImage(frame.pixels, *SIZE_WH))
            (seen,) = predictor.detect([prepared], options)
            rows = zip(
                *(
                    each.tolist()
                    for each in (seen.detections.boxes_N4, seen.detections.scores_N, seen.detections.labels_N)
                ),
                strict=True,
            )
            found.append(
                [
                    {
                        "label": CLASSES[label],
                        "class_id": label,
                        "score": round(score, 4),
                        "box": dict(
                            zip(("x1", "y1", "x2", "y2"), (round(each, 2) for each in box), strict=True)
                        ),
                    }
                    for box, score, label in rows
                ]
            )
    return found


def test_the_job_says_what_was_made_and_only_that_is_stored(watch: Watch, context: WorkerContext) -> None:
    job = watch(clip()).job
    result = job.result or {}
    assert (job.status, job.stage) == ("succeeded", "done")
    assert (result["frames"], result["duration_s"], result["findings"]) == (NUM_FRAMES, 0.9, [])
    assert result["detections"] == sum(len(line["detections"]) for line in lines_of(context, job)[1:])
    assert set(result["files"]) == {"detections", "video"}
    for name in VideoFile:
        content = stored(context, job, name)
        assert result["files"][name] == {
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    assert result["stored_bytes"] == sum(file["size_bytes"] for file in result["files"].values())
    assert list(context.storage.keys("uploads/")) == []


def test_the_annotated_video_shows_the_frames_when_they_were(
    watch: Watch, context: WorkerContext, tmp_path: Path
) -> None:
    job = watch(clip("avi", moving_square(12)), every=3).job
    path = tmp_path / "annotated"
    path.write_bytes(stored(context, job, VideoFile.VIDEO))
    with VideoReader(path) as reader:
        frames = list(reader.frames())
    assert [round(frame.time_s, 2) for frame in frames] == [0.0, 0.3, 0.6, 0.9]
    assert {frame.pixels.shape for frame in frames} == {(48, 64, 3)}


def test_only_what_was_asked_for_is_looked_at_and_made(watch: Watch) -> None:
    made = watch(clip(), every=4, annotate=False, classes=["dog"], max_detections=1)
    assert [line["frame"] for line in made.frames] == [0, 4, 8]
    assert {box["label"] for line in made.frames for box in line["detections"]} <= {"dog"}
    assert max(len(line["detections"]) for line in made.frames) <= 1
    assert set((made.job.result or {})["files"]) == {"detections"}


def test_what_a_damaged_video_still_shows_is_kept_with_a_finding(watch: Watch) -> None:
    whole = clip("webm", moving_square(20))
    made = watch(whole[: len(whole) * 7 // 10])
    result = made.job.result or {}
    assert made.job.status == "succeeded"
    assert 5 < result["frames"] == len(made.frames) < 16
    assert [finding["code"] for finding in result["findings"]] == ["ended_early"]


@pytest.mark.parametrize("video", [b"", b"#EXTM3U\nfile:///etc/hostname\n", clip("mp4")[:900]])
def test_what_cannot_be_read_fails_and_leaves_nothing(
    attempt_at: Callable[..., Attempt], context: WorkerContext, video: bytes
) -> None:
    with pytest.raises(VideoError):
        detect_video.run(attempt_at(video))
    assert list(context.storage.keys("videos/")) == []


def test_a_model_that_cannot_be_served_fails(attempt_at: Callable[..., Attempt]) -> None:
    attempt = attempt_at(clip())
    with attempt.lease._sessions() as session:
        session.execute(ModelFile.__table__.delete())
        session.commit()
    with pytest.raises(WeightsError, match="no file that a backend can use on cpu"):
        detect_video.run(attempt)


def test_a_full_disk_is_noticed(attempt_at: Callable[..., Attempt], monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = attempt_at(clip())
    monkeypatch.setattr(detect_video, "SPACE_EVERY", 1)
    attempt = replace(attempt, settings=attempt.settings.model_copy(update={"min_free_bytes": 1 << 60}))
    with pytest.raises(OSError) as caught:
        detect_video.run(attempt)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("free_bytes", [0, 1 << 60])
def test_a_video_that_did_not_become_whole_says_whether_the_disk_is_full(
    attempt_at: Callable[..., Attempt], monkeypatch: pytest.MonkeyPatch, free_bytes: int
) -> None:
    def cut_short(writer: VideoFileWriter) -> None:
        raise OSError("of 10 frames of the annotated video 3 were written")

    monkeypatch.setattr(VideoFileWriter, "finish", cut_short)
    monkeypatch.setattr(detect_video.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free_bytes))
    with pytest.raises(OSError, match=r"No space left|3 were written") as caught:
        detect_video.run(attempt_at(clip()))
    assert is_disk_full(caught.value) is (free_bytes == 0)


def test_a_length_that_nobody_knows_shows_no_fraction(
    attempt_at: Callable[..., Attempt], context: WorkerContext
) -> None:
    attempt = attempt_at(b"")
    facts = VideoFacts(width=2, height=2, fps=10, num_frames=None)
    detect_video.FrameProgress(attempt, facts, 1).saw(3)
    attempt.report.flush()
    with context.sessions() as session:
        job = session.scalars(select(Job)).one()
    assert (job.progress, job.eta_s) == ({"step": 3, "steps": None, "fraction": None}, None)


@pytest.mark.parametrize(
    ("serving", "setting", "chosen"),
    [
        (None, None, "onnxruntime"),
        (None, "eager", "onnxruntime"),  # the model has no file for it
        ({"backend": "onnxruntime", "precision": "bf16"}, None, "onnxruntime"),  # it has no such precision
        ({"backend": "onnxruntime", "precision": "fp32"}, "eager", "onnxruntime"),
    ],
)
def test_the_first_backend_that_can_be_used_looks(
    attempt_at: Callable[..., Attempt],
    context: WorkerContext,
    serving: dict[str, Any] | None,
    setting: str | None,
    chosen: str,
) -> None:
    attempt = attempt_at(clip())
    if serving is not None:
        shape = {**serving, "streams": 1, "threads": 1, "batch_size": 1}
        with context.sessions() as session:
            session.execute(update(Model).values(serving=shape))
            session.commit()
    settings = attempt.settings.model_copy(update={"backend": setting})
    served = load_served(replace(attempt, settings=settings), torch.device("cpu"))
    assert (served.executor, served.batch_size) == (chosen, 1)
    assert served.streams == torch.get_num_threads()


class SmallMemory:
    """A predictor on a device that holds two pictures at a time."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def prepare(self, picture: int) -> int:
        return picture

    def detect(self, batch: list[int], options: DetectOptions) -> list[int]:
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        self.batches.append(batch)
        return [-each for each in batch]


def test_a_batch_that_does_not_fit_is_looked_at_in_parts() -> None:
    predictor: Any = SmallMemory()
    served = Served(
        model_id="m1",
        record=RECORD,
        predictor=predictor,
        executor="eager",
        streams=1,
        batch_size=5,
        device=torch.device("cpu"),
    )
    pictures: Any = [1, 2, 3, 4, 5]
    assert served.detect(pictures, DetectOptions()) == [-1, -2, -3, -4, -5]
    assert predictor.batches == [[1, 2], [3], [4, 5]]
