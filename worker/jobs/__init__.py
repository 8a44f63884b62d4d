"""The kinds of jobs. A new kind is one module here with a function `run`, and one line below."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from app.jobs.states import JobKind
from detection.registry import Registry
from worker.attempt import Attempt

RunJob = Callable[[Attempt], None]
"""Does the job and ends it through the attempt. A DetectionError fails the job with its message."""

JOBS: Registry[str] = Registry("job kind")
JOBS.add(JobKind.DATASET_IMPORT, "worker.jobs.import_dataset")
JOBS.add(JobKind.MODEL_IMPORT, "worker.jobs.import_model")
JOBS.add(JobKind.TRAIN, "worker.jobs.train")
JOBS.add(JobKind.EVALUATE, "worker.jobs.evaluate")
JOBS.add(JobKind.EXPORT, "worker.jobs.export_model")
JOBS.add(JobKind.PROFILE, "worker.jobs.profile_model")
JOBS.add(JobKind.PRUNE, "worker.jobs.prune_model")
JOBS.add(JobKind.PLAN, "worker.jobs.plan_model")
JOBS.add(JobKind.DETECT_VIDEO, "worker.jobs.detect_video")


def load_job(kind: JobKind) -> RunJob:
    """Import the module of one kind, and only that: an import of pictures needs no torch."""
    run: RunJob = import_module(JOBS[kind]).run
    return run
