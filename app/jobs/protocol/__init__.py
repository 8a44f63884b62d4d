"""The job protocol: who owns a job, and what may be written about it.

The row is the truth and the broker only a bell. A job is claimed by one UPDATE that raises its fence and sets
a lease; every later write of that attempt carries the fence and is refused when it is old, so a worker that
was paused beyond its lease can wake and write nothing. Each function is one transaction and commits.
"""

from app.jobs.protocol.facts import (
    Claim,
    Device,
    Failure,
    LostLeaseError,
    Orders,
    storable,
)
from app.jobs.protocol.leasing import Leased, leased_devices
from app.jobs.protocol.lining import InLine, waiting_line, whole_queues
from app.jobs.protocol.owning import (
    begin_attempt_at,
    claim_job,
    end_cancelled,
    ended_as,
    fail,
    note_checkpoint,
    read_orders,
    renew_lease,
    report,
    requeue,
    succeed,
)
from app.jobs.protocol.rows import (
    MAX_ATTEMPTS,
    MAX_NO_PROGRESS,
    note_change,
    note_line,
)
from app.jobs.protocol.series import MEASURED, SeriesRow
from app.jobs.protocol.sweeping import (
    SWEEP_LIMIT,
    expired_jobs,
    note_ring,
    requeue_expired,
    unanswered_bells,
)
from app.jobs.protocol.wishing import (
    add_job,
    refuse,
    request_cancel,
    request_finish,
    resume,
)

__all__ = [
    "MAX_ATTEMPTS",
    "MAX_NO_PROGRESS",
    "MEASURED",
    "SWEEP_LIMIT",
    "Claim",
    "Device",
    "Failure",
    "InLine",
    "Leased",
    "LostLeaseError",
    "Orders",
    "SeriesRow",
    "add_job",
    "begin_attempt_at",
    "claim_job",
    "end_cancelled",
    "ended_as",
    "expired_jobs",
    "fail",
    "leased_devices",
    "note_change",
    "note_checkpoint",
    "note_line",
    "note_ring",
    "read_orders",
    "refuse",
    "renew_lease",
    "report",
    "request_cancel",
    "request_finish",
    "requeue",
    "requeue_expired",
    "resume",
    "storable",
    "succeed",
    "unanswered_bells",
    "waiting_line",
    "whole_queues",
]
