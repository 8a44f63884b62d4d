"""The sweep: puts right what was lost, in every worker and with no help from the broker.

Jobs of silent workers go back to the queue, bells that nobody answered are rung again, and a job that still
waits although its devices are free here is taken without a bell. Two sweeps at once do no harm.
"""

from __future__ import annotations

import threading
import time

from app.jobs import protocol
from app.logs import get_logger
from app.task_queue import announce
from worker.context import WorkerContext
from worker.registration import register_worker
from worker.rounds import Chore, Rounds
from worker.taking import next_job, refuse_impossible, take_jobs

log = get_logger(__name__)


def sweep_rounds(context: WorkerContext) -> Rounds:
    """Return the thread that sweeps, not started yet."""
    sweep, settings = Sweep(context), context.settings
    return Rounds(
        "sweep",
        [
            Chore(sweep.register, every_s=settings.heartbeat_s),
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

    def register(self) -> None:
        with self._context.sessions() as session:
            register_worker(session, self._context)

    def take_from_silent_owners(self) -> None:
        with self._context.reading() as session:
            expired = protocol.expired_jobs(session)
        for job_id, fence in expired:
            with self._context.sessions() as session:
                status = protocol.requeue_expired(session, job_id, fence)
            if status is not None:
                log.warning("owner_lost", job_id=job_id, fence=fence, status=status)

    def ring_again(self) -> None:
        patience_s = self._context.settings.bell_patience_s
        with self._context.reading() as session:
            unanswered = protocol.unanswered_bells(session, patience_s=patience_s)
        for job_id, queue in unanswered:
            with self._context.sessions() as session:
                if not announce(session, self._context.bell, job_id, queue):
                    return  # the broker is away; the next round tries again

    def take_unheard_job(self) -> None:
        """Take a job whose turn it is for too long: its bell was lost, or Celery does not listen."""
        context = self._context
        if context.draining.is_set():
            return
        refuse_impossible(context)
        turn = next_job(context)
        if self._unheard.is_too_long(None if turn is None else turn.job_id):
            log.warning("taken_without_a_bell", job_id=turn and turn.job_id)
            threading.Thread(target=take_jobs, args=(context,), name="keeper").start()


class Unheard:
    """Notices that it is the same job's turn for too long."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._head: str | None = None
        self._since = 0.0

    def is_too_long(self, head: str | None) -> bool:
        """Return whether it was this job's turn here all that time; None: it is nobody's."""
        if head != self._head:
            self._head, self._since = head, time.monotonic()
        return head is not None and time.monotonic() - self._since >= self._patience_s
