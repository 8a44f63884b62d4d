"""What a job looks like from outside: one shape for every kind."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ConfigDict

from app.api.links import Links
from app.api.shapes import EXAMPLE_ID, Shape, example
from app.jobs.states import JobKind, JobStatus, Queue


class ProgressRead(Shape):
    """How far it is; what the job cannot know is null."""

    model_config = ConfigDict(extra="allow")

    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    fraction: float | None = None
    """0 to 1, and 1 only when the job has succeeded. In a training it counts pictures: trained on, evaluated,
    and measured once more for the model; the last hundredth is the writing of the model."""


class FailureRead(Shape):
    """Why it failed, for people and for programs."""

    code: str
    message: str
    retryable: bool
    details: dict[str, Any] | None = None


class TransitionRead(Shape):
    status: JobStatus
    attempt: int
    """Which attempt it was then; 0 before the first."""
    reason: str
    at: datetime


class JobRead(Shape):
    """One unit of background work, whatever its kind."""

    model_config = example(
        id=EXAMPLE_ID,
        kind="train",
        queue="gpu",
        name="night run",
        status="running",
        stage="training",
        progress={"epoch": 3, "epochs": 10, "step": 84, "steps": 260, "fraction": 0.323},
        eta_s=97.4,
        timing={"images_per_s": 14.2},
        metrics={"loss": 4.81, "lr": 0.0048, "ap": 0.41},
        attempt=1,
        failure=None,
        result=None,
        queue_position=None,
        config={"architecture": "yolox-nano", "epochs": 10, "batch_size": 8},
        dataset_id=EXAMPLE_ID,
        model_id=None,
        transitions=[
            {"status": "queued", "attempt": 0, "reason": "", "at": "2026-11-20T12:00:00Z"},
            {"status": "running", "attempt": 1, "reason": "claimed", "at": "2026-11-20T12:00:01Z"},
        ],
        created_at="2026-11-20T12:00:00Z",
        updated_at="2026-11-20T12:01:30Z",
        started_at="2026-11-20T12:00:01Z",
        ended_at=None,
        links={"self": f"/jobs/{EXAMPLE_ID}", "events": f"/jobs/{EXAMPLE_ID}/events"},
    )

    id: str
    kind: JobKind
    queue: Queue
    """Which workers do it."""
    name: str
    status: JobStatus
    stage: str
    """What it is doing: `preparing`, `training`, `evaluating`, `publishing`, …; `queued` while it waits, and
    `done`, `failed` or `cancelled` once it has ended."""
    progress: ProgressRead
    eta_s: float | None
    """Seconds to the end, as far as they follow from what was timed in this attempt. Null before that, while
    only the result is to be written, of which nothing is known, and when nobody works on it."""
    timing: dict[str, Any]
    metrics: dict[str, Any]
    """The last losses by part, learning rate, AP, images a second, memory."""
    attempt: int
    """How often it was begun, also after a resume or a worker's stop; so each start has its own number."""
    failure: FailureRead | None
    result: dict[str, Any] | None
    """What it made: `model_id`, `dataset_id`, `evaluation_id`. A training also has `ended_early`: `finish`,
    `early_stopping`, or null."""
    queue_position: int | None
    """1 is next; null unless it is queued."""
    config: dict[str, Any]
    """Fully resolved; what really runs. When a worker begins, `auto` becomes its device and precision."""
    dataset_id: str | None
    model_id: str | None
    """The model that it reads."""
    transitions: list[TransitionRead]
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    links: Links


class MetricRow(Shape):
    """What was measured at one step."""

    step: int
    epoch: int
    values: dict[str, Any]


class MetricsRead(Shape):
    """The whole series, one row per step."""

    job_id: str
    rows: list[MetricRow]
