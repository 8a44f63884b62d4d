"""Which version this is, who works, what is used, what is measured."""

from __future__ import annotations

import platform
import shutil
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.api.dependencies import ReadingDep, SettingsDep, StateDep, answers, create_router, needs
from app.api.shapes import Shape, example
from app.database.tables import Dataset, Model, ModelFile, Worker, utc_now
from app.keys.service import Scope

router = create_router("operations")

VERSIONED = ("harrier", "fastapi", "sqlalchemy", "celery", "torch", "torchvision", "onnxruntime")
MOST_LISTED = 1000


class VersionRead(Shape):
    """What is installed."""

    model_config = example(version="0.1.0", python="3.11.7", packages={"torch": "2.15.0"})

    version: str
    python: str
    packages: dict[str, str]


class WorkerRead(Shape):
    """A process that takes jobs from a queue."""

    name: str
    queue: str
    hostname: str
    pid: int
    devices: list[Any]
    versions: dict[str, Any]
    memory: dict[str, Any]
    started_at: datetime
    seen_at: datetime
    alive: bool
    """Seen within the lease time."""


class UsedBytes(Shape):
    id: str
    name: str
    bytes: int


class UsageRead(Shape):
    """Bytes on disk by what they belong to; the largest first."""

    total_bytes: int
    free_bytes: int
    """On the disk of the home."""
    datasets: list[UsedBytes]
    models: list[UsedBytes]
    jobs: list[UsedBytes]
    """Checkpoints; they go with `DELETE /jobs/{id}`."""


@router.get("/version", dependencies=[needs(Scope.READ)], response_model=VersionRead, responses=answers())
def show_version() -> object:
    """Show the version of the service and of what it stands on."""
    return _versions()


@router.get(
    "/workers", dependencies=[needs(Scope.READ)], response_model=list[WorkerRead], responses=answers()
)
def list_workers(session: ReadingDep, settings: SettingsDep) -> object:
    """List the workers: their devices, memory and versions, and when they were last seen."""
    now = utc_now()
    return [
        WorkerRead(
            name=row.name,
            queue=row.queue,
            hostname=row.hostname,
            pid=row.pid,
            devices=row.devices,
            versions=row.versions,
            memory=row.memory,
            started_at=row.started_at,
            seen_at=row.seen_at,
            alive=(now - row.seen_at).total_seconds() < settings.lease_s,
        )
        for row in session.scalars(select(Worker).order_by(Worker.name))
    ]


@router.get("/usage", dependencies=[needs(Scope.READ)], response_model=UsageRead, responses=answers())
def show_usage(session: ReadingDep, settings: SettingsDep) -> object:
    """Show what fills the disk: datasets, models and the checkpoints of jobs."""
    datasets, models = _dataset_bytes(session), _model_bytes(session)
    jobs = _checkpoint_bytes(settings.checkpoints)
    return UsageRead(
        total_bytes=sum(used.bytes for used in (*datasets, *models, *jobs)),
        free_bytes=shutil.disk_usage(settings.home_path).free,
        datasets=datasets,
        models=models,
        jobs=jobs,
    )


@router.get(
    "/metrics",
    dependencies=[needs(Scope.READ)],
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus text."}, **answers()},
)
def show_metrics(state: StateDep) -> object:
    """Show the counters in Prometheus' text format."""
    return PlainTextResponse(state.measures.render(), media_type=CONTENT_TYPE_LATEST)


@lru_cache(maxsize=1)
def _versions() -> VersionRead:
    packages = {name: version(name) for name in VERSIONED}
    return VersionRead(version=packages.pop("harrier"), python=platform.python_version(), packages=packages)


def _dataset_bytes(session: Session) -> list[UsedBytes]:
    rows = session.execute(
        select(Dataset.id, Dataset.name, Dataset.size_bytes)
        .order_by(Dataset.size_bytes.desc())
        .limit(MOST_LISTED)
    )
    return [UsedBytes(id=row.id, name=row.name, bytes=row.size_bytes) for row in rows]


def _model_bytes(session: Session) -> list[UsedBytes]:
    total = func.sum(ModelFile.size_bytes)
    rows = session.execute(
        select(Model.id, Model.name, total)
        .join(ModelFile, ModelFile.model_id == Model.id)
        .group_by(Model.id, Model.name)
        .order_by(total.desc())
        .limit(MOST_LISTED)
    )
    return [UsedBytes(id=row[0], name=row[1], bytes=int(row[2])) for row in rows]


def _checkpoint_bytes(folder: Path) -> list[UsedBytes]:
    if not folder.is_dir():
        return []
    used = [
        UsedBytes(id=job.name, name=job.name, bytes=sum(_size(file) for file in job.rglob("*")))
        for job in folder.iterdir()
        if job.is_dir()
    ]
    return sorted(used, key=lambda job: -job.bytes)[:MOST_LISTED]


def _size(path: Path) -> int:
    """Return a file's size; one that went away meanwhile takes no room."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
