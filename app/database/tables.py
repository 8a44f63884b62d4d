"""The tables. A row of `jobs` is the truth about a job; the broker is only a bell."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from uuid_utils import uuid7

from app.jobs.states import JobKind, JobStatus, Queue

Json = JSON().with_variant(JSONB(), "postgresql")
Serial = BigInteger().with_variant(Integer(), "sqlite")


def new_id() -> str:
    """Return a fresh id; ids sort by the time they were made."""
    return str(uuid7())


def utc_now() -> datetime:
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC; SQLite forgets the zone, this puts it back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), dict[str, Any]: Json, list[Any]: Json}


class Dataset(Table):
    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(16), default="importing", index=True)
    requested_format: Mapped[str] = mapped_column(String(16), default="auto")
    format: Mapped[str | None] = mapped_column(String(16))
    classes: Mapped[list[Any]] = mapped_column(Json, default=list)
    splits: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    attributes: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """What its boxes say besides their class: `{attribute: {value: {split: boxes}}}`; None when nothing."""
    options: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """validation_fraction, seed and class rules, as asked for."""
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the uploaded archive."""
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """Of the uploaded archive."""
    stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """What lies in the storage, once it was imported; None for imports by older versions."""
    storage_prefix: Mapped[str | None] = mapped_column(String(200))
    """Where the manifest, the report and the pictures of a ready dataset lie."""
    failure: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """Why it was rejected: `code` and `message`. It outlives the import job."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class Job(Table):
    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    kind: Mapped[JobKind] = mapped_column(String(32), index=True)
    queue: Mapped[Queue] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200), default="")
    status: Mapped[JobStatus] = mapped_column(String(16), default=JobStatus.QUEUED, index=True)
    stage: Mapped[str] = mapped_column(String(32), default="queued")
    config: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """Fully resolved; what the job really does. The first attempt settles what only a worker knows."""
    device: Mapped[str | None] = mapped_column(String(64))
    """Where the newest attempt runs: `cpu` or accelerators by number; None before it has begun.

    Beside the config, so that the next attempt may run elsewhere if `auto` was asked for.
    """
    devices: Mapped[list[Any] | None] = mapped_column(Json)
    """The same with names and memory: `[{"device", "name", "memory_bytes"}]`."""
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"), index=True)
    model_id: Mapped[str | None] = mapped_column(String(36), index=True)
    """The model that the job reads (evaluate, export, or a training's `init`)."""
    reproduces: Mapped[str | None] = mapped_column(String(36))
    """The model whose training this one repeats; its weights are compared in the end."""

    progress: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    metrics: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    timing: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    eta_s: Mapped[float | None] = mapped_column(Float)
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    failure: Mapped[dict[str, Any] | None] = mapped_column(Json)

    fence: Mapped[int] = mapped_column(Integer, default=0)
    """Numbers the attempts to own the job; a write that carries an older one is refused."""
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    """How often the job was begun, whoever or whatever ended the earlier attempts."""
    charged_attempts: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts that went wrong since its user last asked for it; too many end the job."""
    no_progress: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts in a row that ended without a new checkpoint."""
    checkpoint_step: Mapped[int] = mapped_column(Integer, default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[float | None] = mapped_column(Float, index=True)
    """By the database's clock."""
    not_before: Mapped[float | None] = mapped_column(Float)
    """By the database's clock: a requeued job waits until then."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    finish_requested: Mapped[bool] = mapped_column(default=False)

    version: Mapped[int] = mapped_column(Integer, default=0)
    """Raised by every visible change; the ETag."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class JobTransition(Table):
    __tablename__ = "job_transitions"

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    status: Mapped[JobStatus] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    reason: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[datetime] = mapped_column(default=utc_now)


class JobMetric(Table):
    """One row per (job, step): a resumed attempt replaces the rows beyond its checkpoint."""

    __tablename__ = "job_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer)
    values: Mapped[dict[str, Any]] = mapped_column(Json)


class JobEvent(Table):
    """What the streams replay: `status`, `metric` and `log`, with increasing ids over all jobs."""

    __tablename__ = "job_events"

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    subject: Mapped[str] = mapped_column(String(80), default="")
    """`jobs/…`, `datasets/…` or `models/…`."""
    kind: Mapped[str] = mapped_column(String(16))
    data: Mapped[dict[str, Any]] = mapped_column(Json)
    at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = ({"sqlite_autoincrement": True},)


class DeviceLease(Table):
    """An accelerator that a job computes on; it counts while that job is owned with this very fence."""

    __tablename__ = "device_leases"

    device: Mapped[str] = mapped_column(String(80), primary_key=True)
    """As the driver names it, once in the world, whatever number each process and container sees."""
    host: Mapped[str] = mapped_column(String(200))
    """As the worker calls it that took the lease; for people."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    fence: Mapped[int] = mapped_column(Integer)


class OutboxRow(Table):
    """A bell still to be rung: written in the transaction that queues the job, gone when it was claimed."""

    __tablename__ = "outbox"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    rung_at: Mapped[float | None] = mapped_column(Float)
    """When the bell was last rung, by the database's clock."""
    rings: Mapped[int] = mapped_column(Integer, default=0)


class Model(Table):
    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(200))
    alias: Mapped[str | None] = mapped_column(String(64), unique=True)
    job_id: Mapped[str | None] = mapped_column(String(36), unique=True)
    """The job that made it: at most one model per job. No foreign key: the model outlives the job."""
    origin: Mapped[str] = mapped_column(String(16), default="trained")
    """`trained`, `imported` or `pruned`."""
    task: Mapped[str] = mapped_column(String(16), default="detect")
    """`detect`, or `classify` for a second stage."""
    architecture: Mapped[str] = mapped_column(String(64), index=True)
    classes: Mapped[list[Any]] = mapped_column(Json)
    input_size: Mapped[list[Any]] = mapped_column(Json)
    """[height, width], pixels."""
    record: Mapped[dict[str, Any]] = mapped_column(Json)
    """`detection.model_record.ModelRecord` as JSON."""
    metrics: Mapped[dict[str, Any] | None] = mapped_column(Json)
    parameters: Mapped[int] = mapped_column(BigInteger)
    gflops: Mapped[float | None] = mapped_column(Float)
    provenance: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    serving: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`detection.inference.serving.ServingShape` that a plan pinned; None leaves it to the engine."""
    plan: Mapped[dict[str, Any] | None] = mapped_column(Json, deferred=True)
    """What the last plan measured; large, so read only where it is shown."""
    storage_prefix: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class ModelFile(Table):
    __tablename__ = "model_files"

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    format: Mapped[str] = mapped_column(String(16), primary_key=True)
    """`safetensors`, `onnx`, `torch`, `openvino`."""
    key: Mapped[str] = mapped_column(String(300))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))


class Evaluation(Table):
    __tablename__ = "evaluations"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
    job_id: Mapped[str | None] = mapped_column(String(36), unique=True)
    dataset_id: Mapped[str | None] = mapped_column(String(36))
    dataset_sha256: Mapped[str] = mapped_column(String(64))
    split: Mapped[str] = mapped_column(String(8))
    metrics: Mapped[dict[str, Any]] = mapped_column(Json)
    curves: Mapped[dict[str, Any] | None] = mapped_column(Json, deferred=True)
    """Large, so read only where one evaluation is shown; None for those of older versions."""
    confusion_matrix: Mapped[dict[str, Any] | None] = mapped_column(Json, deferred=True)
    tta: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """Passes of the test-time augmentation and what it changed; None when every picture was seen once."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Worker(Table):
    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    queue: Mapped[str] = mapped_column(String(16))
    hostname: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int] = mapped_column(Integer)
    devices: Mapped[list[Any]] = mapped_column(Json, default=list)
    """The accelerators that its jobs may use, by the number that they know them by."""
    cpu_jobs: Mapped[int] = mapped_column(Integer, default=1)
    """Jobs that it does side by side on the CPU."""
    lease_s: Mapped[float] = mapped_column(Float, default=45.0)
    """After a silence of so many seconds it counts as gone."""
    versions: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    memory: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    seen_at: Mapped[datetime] = mapped_column(default=utc_now)


class ApiKey(Table):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(200))
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the secret; the secret has 256 random bits, so a slow hash adds nothing."""
    scopes: Mapped[list[Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class IdempotencyKey(Table):
    __tablename__ = "idempotency_keys"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    owner: Mapped[str] = mapped_column(String(36), default="")
    """The API key that sent it; keys of different callers never meet."""
    key: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Of method, path and content."""
    status_code: Mapped[int | None] = mapped_column(Integer)
    """Null while the first request is still running."""
    headers: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    body: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (UniqueConstraint("owner", "key"),)


class AuditRow(Table):
    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(80))
    subject: Mapped[str] = mapped_column(String(120))
    request_id: Mapped[str] = mapped_column(String(64), default="")


Index("ix_job_events_job_id_id", JobEvent.job_id, JobEvent.id)
Index("ix_jobs_queue_status", Job.queue, Job.status)
