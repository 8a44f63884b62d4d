"""An attempt's right to write: every write carries its fence and outlives a short silence of the database."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from app.database.session import Sessions
from app.jobs import protocol
from app.jobs.states import JobStatus
from app.logs import get_logger

T = TypeVar("T")

DATABASE_AWAY = (OperationalError, InterfaceError)
"""A connection broke, a lock was busy, a server restarted: the whole transaction may be tried again."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0

log = get_logger(__name__)


class DatabaseAwayError(Exception):
    """The database was silent for as long as a lease lasts: another worker may own the job by now."""


class Lease:
    """One attempt at a job. When it is no longer the newest, every write raises LostLeaseError."""

    def __init__(self, sessions: Sessions, job_id: str, fence: int, *, patience_s: float) -> None:
        self.job_id, self.fence = job_id, fence
        self._sessions, self._patience_s = sessions, patience_s

    def write(self, transaction: Callable[[Session], T]) -> T:
        """Run a transaction that may safely run twice.

        Raises:
            LostLeaseError: the attempt is not the newest; nothing was written.
            DatabaseAwayError: the database was away for longer than the lease.
        """
        return self._persistently(lambda: self._once(transaction))

    def end(self, transaction: Callable[[Session], object]) -> None:
        """Run the transaction that ends the job; when the answer to a commit is lost, look first.

        Raises:
            LostLeaseError: the attempt is not the newest; nothing was written.
            DatabaseAwayError: the database was away for longer than the lease.
        """
        tried = False

        def once() -> None:
            nonlocal tried
            if tried and self.ended_as() is not None:
                return
            tried = True
            self._once(transaction)

        self._persistently(once)

    def ended_as(self) -> JobStatus | None:
        """Return how this attempt ended the job; None when it has not."""
        return self._once(lambda session: protocol.ended_as(session, self.job_id, self.fence))

    def _once(self, transaction: Callable[[Session], T]) -> T:
        with self._sessions() as session:
            return transaction(session)

    def _persistently(self, attempt: Callable[[], T]) -> T:
        give_up_at, pause_s = time.monotonic() + self._patience_s, FIRST_PAUSE_S
        while True:
            try:
                return attempt()
            except DATABASE_AWAY as error:
                log.warning("database_away", job_id=self.job_id, error=str(error.orig))
                if time.monotonic() + pause_s >= give_up_at:
                    raise DatabaseAwayError(self.job_id) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
