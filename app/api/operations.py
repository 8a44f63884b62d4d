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
from app.api.shapes import EXAMPLE_ID, Shape, example
from app.database.tables import Worker, utc_now
from app.jobs.protocol import leased_devices
from app.keys.service import Scope
from detection.training.provenance import describe_source

router = create_router("operations")

MEASURES = """# HELP harrier_requests_total Requests answered.
# TYPE harrier_requests_total counter
harrier_requests_total{method="GET",route="/jobs",status="200"} 42.0
"""
VERSIONED = ("harrier", "fastapi", "sqlalchemy", "celery", "torch", "torchvision", "onnxruntime")


class VersionRead(Shape):
    """What is installed."""

    model_config = example(
        version="0.1.0", source="v0.1.0-0-gc21fc62", python="3.11.7", packages={"torch": "2.15.0"}
    )

    version: str
    """Of Harrier."""
    source: str
    """`git describe` of its code, with `-dirty` when that was changed since; in an installed package, which
    has no repository, the date of its files."""
    python: str
    """That runs it."""
    packages: dict[str, str]
    """What its numbers depend on."""


class WorkerRead(Shape):
    """A process that takes jobs from a queue."""

    model_config = example(
        name="gpu@rack-1:4711",
        queue="gpu",
        hostname="rack-1",
        pid=4711,
        devices=[
            {
                "index": 0,
                "uuid": "GPU-8f6a2c1d-0b5e-4f7a-9c3d-2e1f0a9b8c7d",
                "name": "NVIDIA L4",
                "memory_total_bytes": 24_152_899_584,
                "memory_used_bytes": 1_073_741_824,
                "job_id": EXAMPLE_ID,
            }
        ],
        cpu_jobs=1,
        versions={"python": "3.11.7", "harrier": "0.1.0", "torch": "2.15.0"},
        memory={
            "total_bytes": 67_430_813_696,
            "available_bytes": 51_539_607_552,
            "worker_bytes": 2_147_483_648,
        },
        started_at="2026-11-20T08:00:00Z",
        seen_at="2026-11-20T12:00:05Z",
        alive=True,
    )

    name: str
    """One per process."""
    queue: str
    """The queue that it serves."""
    hostname: str
    """Where it runs."""
    pid: int
    """Of its process, on that host."""
    devices: list[Any]
    """The accelerators that its jobs may use, by `index`, which is how jobs ask for them; without any it
    computes on the CPU. `memory_used_bytes` is null when the driver does not say. `job_id` is the job that
    one is leased to, whichever worker's, or null."""
    cpu_jobs: int
    """Jobs that it does side by side on the CPU."""
    versions: dict[str, Any]
    """Of what is installed there."""
    memory: dict[str, Any]
    """Bytes: of its host, and of itself with its job processes."""
    started_at: datetime
    """When its process began."""
    seen_at: datetime
    """When it last said that it lives."""
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
    job_of = {each.uuid: each.job_id for each in leased_devices(session)}
    return [
        WorkerRead(
            name=row.name,
            queue=row.queue,
            hostname=row.hostname,
            pid=row.pid,
            devices=[{**device, "job_id": job_of.get(device.get("uuid"))} for device in row.devices],
            cpu_jobs=row.cpu_jobs,
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
    responses={
        200: {"description": "Prometheus text.", "content": {"text/plain": {"example": MEASURES}}},
        **answers(),
    },
)
def show_metrics(state: StateDep) -> object:
    """Show the counters in Prometheus' text format."""
    return PlainTextResponse(state.measures.render(), media_type=CONTENT_TYPE_LATEST)


@lru_cache(maxsize=1)
def _versions() -> VersionRead:
    packages = {name: version(name) for name in VERSIONED}
    return VersionRead(
        version=packages.pop("harrier"),
        source=describe_source(),
        python=platform.python_version(),
        packages=packages,
    )
