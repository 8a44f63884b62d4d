"""Which version this is, who works, what is measured."""

from __future__ import annotations

import platform
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import select

from app.api.dependencies import ReadingDep, SettingsDep, StateDep, answers, create_router, needs
from app.api.shapes import Shape, example
from app.database.tables import Worker, utc_now
from app.keys.service import Scope

router = create_router("operations")

VERSIONED = ("harrier", "fastapi", "sqlalchemy", "celery", "torch", "torchvision", "onnxruntime")


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
