"""The sweep: puts right what was lost, in every worker and with no help from the broker.

Jobs of silent workers go back to the queue, bells that nobody answered are rung again, and a job that still
waits although a device is free here is taken without a bell. Two sweeps at once do no harm.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from app.jobs import protocol
from app.logs import get_logger
from app.task_queue import announce
from worker.context import WorkerContext
from worker.keeper import keep
from worker.presence import show_presence
from worker.rounds import Chore, Rounds

log = get_logger(__name__)


def sweep_rounds(context: WorkerContext) -> Rounds:
    """Return the thread that sweeps, not started yet."""
    sweep, settings = Sweep(context), context.settings
    return Rounds(
        "sweep",
        [
            Chore(sweep.show_presence, every_s=settings.heartbeat_s),
            Chore(sweep.take_from_silent_owners, every_s=settings.sweep_s),
            Chore(sweep.ring_again, every_s=settings.sweep_s),
            Chore(sweep.take_unheard_job, every_s=settings.sweep_s),
        ],
    )


class Sweep:
    """What is looked for in every round."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._unheard = Unheard(context.settings.bell_patience_s)

    def show_presence(self) -> None:
        with self._context.sessions() as session:
            show_presence(session, self._context)

    def take_from_silent_owners(self) -> None:
        with self._reading() as session:
            expired = protocol.expired_jobs(session)
        for job_id, fence in expired:
            with self._context.sessions() as session:
                status = protocol.requeue_expired(session, job_id, fence)
            if status is not None:
                log.warning("owner_lost", job_id=job_id, fence=fence, status=status)

    def ring_again(self) -> None:
        patience_s = self._context.settings.bell_patience_s
        with self._reading() as session:
            unanswered = protocol.unanswered_bells(session, patience_s=patience_s)
        for job_id, queue in unanswered:
            with self._context.sessions() as session:
                if not announce(session, self._context.bell, job_id, queue):
                    return  # the broker is away; the next round tries again

    def take_unheard_job(self) -> None:
        """Take a job that waits although a device is free: its bell was lost, or Celery does not listen."""
        context, head = self._context, None
        if context.slots.any_free and not context.draining.is_set():
            with self._reading() as session:
                head = protocol.head_of_queue(session, context.queue)
        if self._unheard.is_too_long(head):
            log.warning("taken_without_a_bell", job_id=head)
            threading.Thread(target=keep, args=(head, context), name="keeper").start()

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with self._context.sessions() as session:
            session.connection(execution_options={"read_only": True})
            yield session


class Unheard:
    """Notices that the same job heads the queue for too long."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._head: str | None = None
        self._since = 0.0

    def is_too_long(self, head: str | None) -> bool:
        """Return whether this job has waited here all that time; None: none waits, or no device is free."""
        if head != self._head:
            self._head, self._since = head, time.monotonic()
        return head is not None and time.monotonic() - self._since >= self._patience_s
