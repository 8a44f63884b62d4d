"""How a job process ends, and what its keeper makes of it."""

from __future__ import annotations

import signal
from enum import IntEnum

from app.jobs.protocol import Failure


class ExitCode(IntEnum):
    DONE = 0
    """The process ended its job itself: succeeded, failed with a reason, or queued again."""
    CRASHED = 1
    """An error that nobody foresaw; its traceback is in the job's log file."""
    CANCELLED = 64
    """It stopped because its user wants no more of it."""
    LOST_LEASE = 65
    """Somebody else owns the job now, or the database was away for longer than the lease."""
    RANK_KILLED = 66
    """A process of a training on several was killed, and the others ended with it."""
    DRAINED = 128 + signal.SIGTERM
    """It made room for a deploy: its state is saved, another process goes on later."""


class RanksEndedError(Exception):
    """The processes of a training on several have ended before it, and the job's log says why."""

    def __init__(self, code: ExitCode) -> None:
        self.code = code
        super().__init__(code.name)


DRAINED = Failure("drained", "the worker was stopped; the job goes on where it was", retryable=True)

NOT_RUN = Failure("internal_error", "no process could be started for the job on this host", retryable=True)


def failure_of(code: int, *, hung: bool) -> Failure:
    """Say in a user's words why a process with this exit code did not end its job."""
    if hung:
        return Failure("hang", "the job process showed no sign of progress and was stopped", retryable=True)
    if code == ExitCode.RANK_KILLED:
        message = "a process of the training was killed, maybe for want of memory"
        return Failure("killed", message, retryable=True)
    if code == -signal.SIGKILL:
        return Failure("killed", "the job process was killed, maybe for want of memory", retryable=True)
    if code < 0:
        return Failure("crashed", f"the job process died of {signal.Signals(-code).name}", retryable=True)
    return Failure("internal_error", "internal error; the log of the worker knows more", retryable=True)
