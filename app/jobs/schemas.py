"""What a job looks like from outside: one shape for every kind."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict

from app.api.links import Links
from app.api.shapes import EXAMPLE_ID, Shape, example
from app.jobs.states import JobKind, JobStatus, Queue


class ProgressRead(Shape):
    """How far it is; what the job cannot know is null."""

    model_config = ConfigDict(extra="allow")

    epoch: int | None = None
    """The one that runs; the first is 1."""
    epochs: int | None = None
    """How many there will be."""
    step: int | None = None
    """Steps done."""
    steps: int | None = None
    """How many there will be."""
    fraction: float | None = None
    """0 to 1, and 1 only when the job has succeeded. In a training it counts pictures: trained on, evaluated,
    and measured once more for the model; the last hundredth is the writing of the model."""


class FailureRead(Shape):
    """Why it failed, for people and for programs."""

    code: str
    """Stable; docs/errors.md explains it."""
    message: str
    """What went wrong, for the person who began it."""
    retryable: bool
    """The same job could succeed another time."""
    details: dict[str, Any] | None = None
    """What more is known, by kind of failure."""


class DeviceRead(Shape):
    """Something that it computes on."""

    device: str
    """As jobs ask for it: `cpu`, or the accelerator's number on its worker."""
    name: str
    """Of the accelerator or the processor."""
    memory_bytes: int | None
    """Of the accelerator; of the CPU what processes may use there."""


class WaitingRead(Shape):
    """What a queued job waits for."""

    code: Literal[
        "turn", "device_busy", "device_missing", "no_worker", "retry_later", "starting", "broker_silent"
    ]
    """`turn`: another queued job comes before it. `device_busy`: a running job has its device.
    `device_missing`: no live worker has its device. `no_worker`: none of its queue is alive. `retry_later`:
    an attempt went wrong, and the next one has to wait. `starting`: its devices are free. `broker_silent`:
    the same, but no worker could be told."""
    message: str
    """The same in a sentence."""
    job_id: str | None = None
    """The job that has the device, or comes before it there."""
    device: str | None = None
    """The device that is waited for: its number, `cpu`, or `auto` for any accelerator."""
    host: str | None = None
    """Where that device is."""
    since: datetime | None = None
    """When a worker or the broker was last heard of, if it is waited for."""
    until: datetime | None = None
    """Not before this time."""


class TransitionRead(Shape):
    status: JobStatus
    """What it became."""
    attempt: int
    """Which attempt it was then; 0 before the first."""
    reason: str
    """Why, in a word."""
    at: datetime
    """When."""


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
        timing={"preparing_s": 1.9, "training_s": 81.4, "evaluating_s": 6.7},
        metrics={"loss": 4.81, "lr": 0.0048, "ap": 0.41, "images_per_s": 14.2},
        attempt=1,
        failure=None,
        result=None,
        queue_position=None,
        waiting_for=None,
        devices=[{"device": "0", "name": "NVIDIA H200", "memory_bytes": 150_754_820_096}],
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
    """For all calls about it."""
    kind: JobKind
    """What it does."""
    queue: Queue
    """Which workers do it."""
    name: str
    """Shown in lists."""
    status: JobStatus
    """Where it is on its way."""
    stage: str
    """What it is doing: `preparing`, `training`, `evaluating`, `publishing`, …; `queued` while it waits, and
    `done`, `failed` or `cancelled` once it has ended."""
    progress: ProgressRead
    """How far it is; what cannot be known is null."""
    eta_s: float | None
    """Seconds to the end, as far as they follow from what was timed in this attempt. Null before that, while
    only the result is to be written, of which nothing is known, and when nobody works on it."""
    timing: dict[str, Any]
    """Seconds by part of the work, as `preparing_s`, `training_s`, `evaluating_s`, `publishing_s`."""
    metrics: dict[str, Any]
    """The last losses by part, learning rate, AP, images a second, memory."""
    attempt: int
    """How often it was begun, also after a resume or a worker's stop; so each start has its own number."""
    failure: FailureRead | None
    """Only when it has failed."""
    result: dict[str, Any] | None
    """What it made: `model_id`, `dataset_id`, `evaluation_id`. A training also has `ended_early`: `finish`,
    `early_stopping`, or null."""
    queue_position: int | None
    """1 is the oldest of its queue; null unless it is queued. One behind it may begin first, if its device is
    free."""
    waiting_for: WaitingRead | None
    """Why it has not begun; null unless it is queued."""
    devices: list[DeviceRead]
    """What its newest attempt runs on; empty while it is queued."""
    config: dict[str, Any]
    """Fully resolved; what really runs. When a worker begins, `auto` becomes its device and precision."""
    dataset_id: str | None
    """The dataset that it reads or makes."""
    model_id: str | None
    """The model that it reads."""
    transitions: list[TransitionRead]
    """Every change of its state."""
    created_at: datetime
    """When it was asked for."""
    updated_at: datetime
    """When something about it changed last."""
    started_at: datetime | None
    """When its newest attempt began."""
    ended_at: datetime | None
    """When it ended, whichever way."""
    links: Links
    """Where to go on, as far as its state allows."""


class MetricRow(Shape):
    """What was measured at one step."""

    step: int
    """Steps done since the training began."""
    epoch: int
    """The epoch of this step."""
    values: dict[str, Any]
    """`loss` and its weighted parts, which add up to it: `box`, `objectness`, `class`, `l1` (YOLOX), or `qfl`
    (class and quality), `giou`, `dfl` and the same of the auxiliary head with `aux_` (NanoDet-Plus).
    `assigned`: priors per box that learn to find it. `aux_teaches`: 1 while the auxiliary head teaches the
    rest of the network, then 0. `lr`, `images_per_s`; after an evaluation `ap`, `ap50` and their like."""


class MetricsRead(Shape):
    """The whole series, one row per step."""

    model_config = example(
        job_id=EXAMPLE_ID,
        rows=[
            {"step": 26, "epoch": 1, "values": {"loss": 6.02, "lr": 0.0016}},
            {"step": 52, "epoch": 2, "values": {"loss": 5.11, "lr": 0.0033, "ap": 0.33}},
        ],
    )

    job_id: str
    """The job that measured."""
    rows: list[MetricRow]
    """By step."""
