"""What a job can be, and how it may move from one state to the next."""

from __future__ import annotations

from enum import StrEnum


class JobKind(StrEnum):
    DATASET_IMPORT = "dataset-import"
    MODEL_IMPORT = "model-import"
    TRAIN = "train"
    EVALUATE = "evaluate"
    EXPORT = "export"
    PROFILE = "profile"
    PRUNE = "prune"
    PLAN = "plan"
    DETECT_VIDEO = "detect-video"


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Queue(StrEnum):
    CPU = "cpu"
    GPU = "gpu"


QUEUE_OF = {
    JobKind.DATASET_IMPORT: Queue.CPU,
    JobKind.MODEL_IMPORT: Queue.CPU,
    JobKind.TRAIN: Queue.GPU,
    JobKind.EVALUATE: Queue.GPU,
    JobKind.EXPORT: Queue.CPU,
    JobKind.PROFILE: Queue.GPU,
    JobKind.PRUNE: Queue.GPU,
    JobKind.PLAN: Queue.GPU,
    JobKind.DETECT_VIDEO: Queue.GPU,
}
"""Which workers do it: an import never waits behind a night's training."""

ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
ACTIVE = frozenset(JobStatus) - ENDED
RESUMABLE = frozenset({JobStatus.FAILED, JobStatus.CANCELLED})
"""States from which a training may go on."""
OWNED = frozenset({JobStatus.RUNNING, JobStatus.CANCELLING})
"""States in which somebody holds the lease."""

STAGE_OF = {
    JobStatus.QUEUED: "queued",
    JobStatus.SUCCEEDED: "done",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}
"""The stage of a job that nobody works on; the others say what they are doing."""

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED, JobStatus.FAILED}),
    JobStatus.RUNNING: frozenset(JobStatus) - {JobStatus.RUNNING},
    JobStatus.CANCELLING: ENDED,
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.CANCELLED: frozenset({JobStatus.QUEUED}),
}
"""A resume puts an ended training back into the queue."""
