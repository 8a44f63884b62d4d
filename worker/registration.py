"""The worker's row in `workers`: who it is, what it computes on, and that it was alive a moment ago."""

from __future__ import annotations

import os
import platform
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import psutil
from sqlalchemy import delete
from sqlalchemy.orm import Session

from app.database.tables import Worker, utc_now
from worker.context import WorkerContext
from worker.devices import describe_accelerators

LIBRARIES = ("harrier", "celery", "torch", "torchvision", "onnxruntime")
FORGOTTEN_AFTER = timedelta(hours=1)
"""A worker that was silent for this long is no longer listed."""


def register_worker(session: Session, context: WorkerContext) -> None:
    """Insert or refresh the worker's row."""
    row = session.get(Worker, context.name) or Worker(name=context.name, versions=library_versions())
    row.queue, row.hostname, row.pid = context.queue.value, context.host, os.getpid()
    row.devices, row.cpu_jobs = describe_accelerators(context.slots.accelerators), context.slots.cpu_jobs
    row.lease_s = context.settings.lease_s
    row.memory, row.seen_at = memory_in_use(), utc_now()
    session.add(row)
    session.commit()


def deregister_worker(session: Session, context: WorkerContext) -> None:
    """Remove the row of a worker that stops in an orderly way."""
    session.execute(delete(Worker).where(Worker.name == context.name))
    session.commit()


def forget_silent_workers(session: Session) -> None:
    session.execute(delete(Worker).where(Worker.seen_at < utc_now() - FORGOTTEN_AFTER))
    session.commit()


def library_versions() -> dict[str, str]:
    """Return versions from the packages' metadata: nothing is imported for it."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def memory_in_use() -> dict[str, Any]:
    """Return bytes: of the host, and of this worker with its job processes."""
    host, process = psutil.virtual_memory(), psutil.Process()
    family = [process, *process.children(recursive=True)]
    return {
        "total_bytes": host.total,
        "available_bytes": host.available,
        "worker_bytes": sum(_resident_bytes(member) for member in family),
    }


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
