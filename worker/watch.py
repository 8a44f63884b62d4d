"""What a keeper watches beside its child: the lease's clock, and how long the child has been silent."""

from __future__ import annotations

import statistics
import time
from collections import deque

from app.database.session import Sessions
from app.jobs import protocol
from app.jobs.protocol import Claim, Orders
from app.logs import get_logger
from worker.lease import DATABASE_AWAY

ORDERS_S = 1.0
"""How often the user's wishes are read; a cancel must not wait for the next heartbeat."""
INTERVALS_REMEMBERED = 50
HANG_INTERVALS = 10
"""A process that is silent for this many of its own median intervals may hang."""

log = get_logger(__name__)


class Heart:
    """Renews a lease, and knows when it may have run out unrenewed."""

    def __init__(self, sessions: Sessions, claim: Claim, *, heartbeat_s: float, lease_s: float) -> None:
        self._sessions, self._claim = sessions, claim
        self._heartbeat_s, self._lease_s = heartbeat_s, lease_s
        self._orders = Orders(cancel=False, finish=False)
        self._renewed_at = self._asked_at = time.monotonic()

    @property
    def stopped(self) -> bool:
        """True when the lease was not renewed in time: somebody else may own the job."""
        return time.monotonic() - self._renewed_at >= self._lease_s

    def beat(self) -> Orders:
        """Renew the lease or only read the orders, whichever is due; return the newest orders.

        Raises:
            LostLeaseError: the attempt is not the newest.
        """
        now = time.monotonic()
        if now - self._asked_at >= min(ORDERS_S, self._heartbeat_s):
            self._asked_at = now
            try:
                self._ask(now)
            except DATABASE_AWAY as error:
                log.warning("database_away", job_id=self._claim.job_id, error=str(error.orig))
        return self._orders

    def _ask(self, now: float) -> None:
        job_id, fence = self._claim.job_id, self._claim.fence
        with self._sessions() as session:
            if now - self._renewed_at < self._heartbeat_s:
                session.connection(execution_options={"read_only": True})
                self._orders = protocol.read_orders(session, job_id, fence)
                return
            self._orders = protocol.renew_lease(session, job_id, fence, lease_s=self._lease_s)
        self._renewed_at = now


class Silence:
    """How long a process has shown no progress, compared with what is usual for it."""

    def __init__(self, hang_s: float) -> None:
        self._hang_s = hang_s
        self._heard_at = time.monotonic()
        self._intervals: deque[float] = deque(maxlen=INTERVALS_REMEMBERED)

    def note(self, pulses: int) -> None:
        """Remember that the process showed `pulses` signs of progress since the last look."""
        if pulses:
            now = time.monotonic()
            self._intervals.append((now - self._heard_at) / pulses)
            self._heard_at = now

    @property
    def is_hang(self) -> bool:
        usual_s = statistics.median(self._intervals) if self._intervals else 0.0
        return time.monotonic() - self._heard_at > max(HANG_INTERVALS * usual_s, self._hang_s)
