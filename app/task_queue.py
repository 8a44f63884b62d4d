"""The bell: tells the workers that a job waits. The row is the truth, so a ring may be lost or doubled."""

from __future__ import annotations

import threading
import time
from typing import Protocol

import structlog
from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from sqlalchemy.orm import Session

from app.jobs import protocol
from app.jobs.states import Queue
from app.settings import Settings

RUN_JOB = "harrier.run_job"
"""The one Celery task; its only argument is the id of a job."""
VISIBILITY_TIMEOUT_S = 3600
"""The shortest among the programs on one broker wins, so all of them say the same."""
RING_TIMEOUT_S = 1.0
QUIET_S = 2.0
"""After a ring that failed, further ones are left to the sweep for this long."""

log = structlog.get_logger(__name__)


class Bell(Protocol):
    def ring(self, job_id: str, queue: Queue) -> bool:
        """Tell the workers of `queue` that the job waits. False when nobody could be told; never raises."""


class CeleryBell:
    """Rings over its own connection, without retries: a silent broker costs a second, and not every time."""

    def __init__(self, settings: Settings) -> None:
        self._app = _producer(settings)
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._quiet_until = 0.0

    def ring(self, job_id: str, queue: Queue) -> bool:
        if not self._lock.acquire(timeout=RING_TIMEOUT_S):
            return False
        try:
            return time.monotonic() >= self._quiet_until and self._send(job_id, queue)
        finally:
            self._lock.release()

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _send(self, job_id: str, queue: Queue) -> bool:
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        try:
            self._app.send_task(
                RUN_JOB, (job_id,), queue=queue.value, connection=self._connection, retry=False
            )
        except (KombuError, RedisError, OSError) as error:
            log.warning("bell_not_rung", job_id=job_id, queue=queue.value, error=str(error))
            self._quiet_until = time.monotonic() + QUIET_S
            self._disconnect()
            return False
        return True

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.release()  # type: ignore[no-untyped-call]
            self._connection = None


def announce(session: Session, bell: Bell, job_id: str, queue: Queue) -> bool:
    """Ring for a job whose row is committed, and record that it was rung for."""
    rung = bell.ring(job_id, queue)
    if rung:
        protocol.note_ring(session, job_id)
    return rung


def _producer(settings: Settings) -> Celery:
    app = Celery("harrier", broker=settings.broker_address, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_publish_retry=False,
        broker_connection_timeout=RING_TIMEOUT_S,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "socket_connect_timeout": RING_TIMEOUT_S,
            "socket_timeout": RING_TIMEOUT_S,
            "socket_keepalive": True,
            "max_retries": 0,
        },
    )
    return app
