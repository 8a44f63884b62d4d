"""What the library's errors are called as the failure of a job; each code is explained in docs/errors.md."""

from __future__ import annotations

import errno
import re
import traceback

from app.errors import QuotaExceededError
from app.jobs.protocol import Failure
from detection.data.wording import printable
from detection.errors import (
    ArchiveError,
    BackendError,
    CheckpointError,
    ConfigError,
    DatasetFormatError,
    DetectionError,
    DeviceError,
    DeviceMemoryError,
    ExportError,
    ImageError,
    MissingPackageError,
    NoSpaceError,
    RankError,
    TrainingDivergedError,
    UnknownNameError,
    VideoError,
    VideoTooLargeError,
    WeightsError,
)

CODES: dict[type[DetectionError], str] = {
    BackendError: "backend_unusable",
    NoSpaceError: "no_space",
    CheckpointError: "checkpoint_unusable",
    ConfigError: "config_invalid",
    DatasetFormatError: "dataset_unreadable",
    DeviceError: "device_missing",
    DeviceMemoryError: "out_of_memory",
    ExportError: "export_differs",
    ImageError: "image_unusable",
    MissingPackageError: "package_missing",
    RankError: "rank_failed",
    TrainingDivergedError: "diverged",
    UnknownNameError: "unknown_name",
    VideoTooLargeError: "video_too_large",
    VideoError: "video_unusable",
    WeightsError: "weights_unusable",
}
WORTH_ANOTHER_TRY = (NoSpaceError, CheckpointError, DeviceMemoryError)
"""Not the job's fault, or different the next time: the attempt counts, the job stays."""
NO_SPACE_DELAY_S = 60.0
_FOLDERS = re.compile(r"/\S*/")


def failure_of(error: DetectionError | QuotaExceededError) -> Failure:
    """Return the failure that an error means for a job; its message is for users."""
    if isinstance(error, QuotaExceededError):
        return Failure("quota_exceeded", error.detail)
    if isinstance(error, ArchiveError):
        return Failure(error.code, str(error))
    code = next((code for kind, code in CODES.items() if isinstance(error, kind)), "detection_error")
    return Failure(code, str(error), retryable=isinstance(error, WORTH_ANOTHER_TRY))


def crash_line(error: Exception) -> str:
    """Say what an error was that nobody foresaw, and where, for the job's log: no folders of this host."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    first_line = next(iter(str(error).splitlines()), "")
    said = printable(_FOLDERS.sub("…/", first_line))
    return f"internal error: {type(error).__name__}{f': {said}' if said else ''}{place}"


def is_disk_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
