"""What every part of one worker process shares."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from app.database.session import Sessions, create_database_engine, create_sessions
from app.database.tables import utc_now
from app.jobs.states import Queue
from app.settings import Settings
from app.storage import Storage, open_storage
from app.task_queue import Bell, CeleryBell
from worker.devices import device_environment, open_slots, seen_gpus
from worker.slots import Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """One worker: its queue, its devices, and the ways to the database, the files and the broker."""

    name: str
    """Unique among all workers there ever were on this host: the owner of a lease."""
    queue: Queue
    settings: Settings
    sessions: Sessions
    storage: Storage
    bell: Bell
    slots: Slots
    host: str = field(default_factory=socket.gethostname)
    started_at: datetime = field(default_factory=utc_now)
    device_environment: Mapping[str, str] = field(default_factory=dict)
    """What a job process is started with, so that it numbers the accelerators as the slots do."""
    draining: threading.Event = field(default_factory=threading.Event)
    """Set when the worker is to stop: jobs save their state and go back to the queue."""

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that does not wait for those who write."""
        with self.sessions() as session:
            session.connection(execution_options={"read_only": True})
            yield session


def create_context(settings: Settings, queue: Queue) -> WorkerContext:
    """Return the context of a worker of `queue`.

    Raises:
        DeviceError: the settings name a device that does not exist.
    """
    gpus = seen_gpus()
    return WorkerContext(
        name=f"{queue}@{socket.gethostname()}:{os.getpid()}",
        queue=queue,
        settings=settings,
        sessions=create_sessions(create_database_engine(settings)),
        storage=open_storage(settings),
        bell=CeleryBell(settings),
        slots=open_slots(settings, queue, gpus),
        device_environment=device_environment(gpus),
    )


_current: list[WorkerContext] = []


def set_context(context: WorkerContext) -> None:
    """Make `context` the one of this process; Celery tasks have no other way to learn of it."""
    _current[:] = [context]


def get_context() -> WorkerContext:
    if not _current:
        raise RuntimeError("this process is no worker")
    return _current[0]
