"""What every part of one worker process shares."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field

from app.database.session import Sessions, create_database_engine, create_sessions
from app.jobs.states import Queue
from app.settings import Settings
from app.storage import Storage, open_storage
from app.task_queue import Bell, CeleryBell
from worker.devices import slot_devices
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
    draining: threading.Event = field(default_factory=threading.Event)
    """Set when the worker is to stop: jobs save their state and go back to the queue."""


def create_context(settings: Settings, queue: Queue) -> WorkerContext:
    return WorkerContext(
        name=f"{queue}@{socket.gethostname()}:{os.getpid()}",
        queue=queue,
        settings=settings,
        sessions=create_sessions(create_database_engine(settings)),
        storage=open_storage(settings),
        bell=CeleryBell(settings),
        slots=Slots(slot_devices(settings, queue)),
    )


_current: list[WorkerContext] = []


def set_context(context: WorkerContext) -> None:
    """Make `context` the one of this process; Celery tasks have no other way to learn of it."""
    _current[:] = [context]


def get_context() -> WorkerContext:
    if not _current:
        raise RuntimeError("this process is no worker")
    return _current[0]
