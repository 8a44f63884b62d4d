"""Where the files of a video job lie in the storage, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

FOLDER = "videos/"


class VideoFile(StrEnum):
    """What a job makes of a video."""

    DETECTIONS = "detections"
    VIDEO = "video"


@dataclass(frozen=True, slots=True)
class FileKind:
    suffix: str
    media_type: str


KINDS = {
    VideoFile.DETECTIONS: FileKind("ndjson", "application/x-ndjson"),
    VideoFile.VIDEO: FileKind("webm", "video/webm"),
}


def results_prefix(job_id: str) -> str:
    return f"{FOLDER}{job_id}/"


def result_key(job_id: str, fence: int, wanted: VideoFile) -> str:
    """Return where attempt `fence` at a job stores a file; only the last one's are ever shown."""
    return f"{results_prefix(job_id)}{fence}/{wanted}.{KINDS[wanted].suffix}"
