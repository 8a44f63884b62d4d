"""The keeper: claims a job, runs it in a process of its own, renews the lease, and settles how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy.orm import Session

from app.jobs import protocol
from app.jobs.protocol import Claim, Failure, LostLeaseError
from app.jobs.states import QUEUE_OF, JobStatus
from app.logs import get_logger
from app.task_queue import announce
from detection.training.state import StopRequest
from worker.child import Child, job_process
from worker.context import WorkerContext
from worker.exit_codes import DRAINED, NOT_RUN, ExitCode, failure_of
from worker.lease import DATABASE_AWAY, DatabaseAwayError, Lease
from worker.scratch import remove_scratch
from worker.threads import thread_environment
from worker.uploads import remove_useless_upload
from worker.watch import Heart, Silence

LOOK_S = 0.2
"""How often a keeper looks after its child."""
CANCEL_GRACE_S = 5.0
"""A cancelled process has a checkpoint: what it may lose is little, and its user is waiting."""
NOT_RUN_DELAY_S = 60.0
"""No memory, no disk, no more processes: the host needs time, and the job is not at fault."""
EXIT_GRACE_S = 10.0
"""For a process that has ended its job and only has to exit."""

log = get_logger(__name__)


def keep(job_id: str, context: WorkerContext, numbers: Sequence[str]) -> bool:
    """Run a job here on these devices, if they are free and it is still to be had; return whether it was."""
    if context.draining.is_set() or not context.slots.take(numbers, job_id):
        return False
    try:
        claim = _claim(job_id, context, numbers)
        if claim is not None:
            Keeper(claim, context, ",".join(numbers)).run()
            remove_useless_upload(context, job_id)
        return claim is not None
    finally:
        context.slots.give_back(numbers, job_id)


def _claim(job_id: str, context: WorkerContext, numbers: Sequence[str]) -> Claim | None:
    try:
        with context.sessions() as session:
            return protocol.claim_job(
                session,
                job_id,
                owner=context.name,
                lease_s=context.settings.lease_s,
                host=context.host,
                devices=context.slots.devices(numbers),
            )
    except DATABASE_AWAY as error:
        log.warning("database_away", job_id=job_id, error=str(error.orig))
        return None


class Keeper:
    """Watches one attempt at one job, from its claim to its end."""

    def __init__(self, claim: Claim, context: WorkerContext, device: str) -> None:
        """Watch what was claimed on `device`: `cpu`, or accelerators by number."""
        settings = context.settings
        self._claim, self._context, self._device = claim, context, device
        self._stop_grace_s = settings.stop_grace_s
        self._lease = Lease(context.sessions, claim.job_id, claim.fence, patience_s=settings.lease_s)
        self._heart = Heart(
            context.sessions, claim, heartbeat_s=settings.heartbeat_s, lease_s=settings.lease_s
        )
        self._silence = Silence(settings.hang_s)
        self._cancelled = self._drained = self._hung = self._over = False

    def run(self) -> None:
        """Run the attempt's process to its end, whatever that may be, and settle it."""
        claim = self._claim
        log.info("job_started", job_id=claim.job_id, kind=claim.kind, fence=claim.fence, device=self._device)
        try:
            code = self._run_process()
        except OSError as error:
            log.error("job_process_not_run", job_id=claim.job_id, error=str(error))
            with suppress(LostLeaseError, DatabaseAwayError):
                self._requeue(NOT_RUN, costs_attempt=True, delay_s=NOT_RUN_DELAY_S)
            return
        remove_scratch(self._context.settings, claim.job_id, claim.fence)
        log.info("job_process_ended", job_id=claim.job_id, fence=claim.fence, code=code)
        self._settle(code)

    def _run_process(self) -> int:
        claim, settings = self._claim, self._context.settings
        with job_process(
            claim.job_id,
            claim.fence,
            device=self._device,
            log_file=settings.job_logs / f"{claim.job_id}.log",
            environment={
                **thread_environment(self._context.slots.sharing),
                **self._context.device_environment,
            },
        ) as child:
            while child.running:
                self._look_after(child)
        return child.exit_code

    def _look_after(self, child: Child) -> None:
        self._silence.note(child.wait(LOOK_S))
        self._pass_on_orders(child)
        if self._context.draining.is_set() or self._heart.stopped:
            self._drained = True
            child.stop(StopRequest.DRAIN, grace_s=self._stop_grace_s)
        if self._silence.is_hang and not self._hung:
            self._hung = True
            log.warning("job_process_hangs", job_id=self._claim.job_id, pid=child.pid)
            child.interrupt_hung(grace_s=self._stop_grace_s)
        child.enforce()

    def _pass_on_orders(self, child: Child) -> None:
        if self._over:
            return
        try:
            orders = self._heart.beat()
        except LostLeaseError:
            self._end(child)
            return
        if orders.cancel:
            self._cancelled = True
            child.stop(StopRequest.CANCEL, grace_s=CANCEL_GRACE_S)
        elif orders.finish:
            child.tell(StopRequest.FINISH)

    def _end(self, child: Child) -> None:
        """Let a process go home that has ended its attempt itself; one that lost it must do nothing more."""
        self._over = True
        child.wait(0.0)  # it may have said so after it was listened to, and before the database was asked
        if child.has_last_word:
            child.allow(EXIT_GRACE_S)
            return
        log.warning("lease_lost", job_id=self._claim.job_id, fence=self._claim.fence)
        child.kill()

    def _settle(self, code: int) -> None:
        """Write down the end of a process that could not do it itself."""
        if self._over or code in (ExitCode.DONE, ExitCode.LOST_LEASE):
            return
        with suppress(LostLeaseError, DatabaseAwayError):  # somebody else has settled it, or a sweep will
            if self._cancelled or code == ExitCode.CANCELLED:
                self._lease.end(self._end_cancelled)
            elif not self._hung and (self._drained or code == ExitCode.DRAINED):
                self._requeue(DRAINED, costs_attempt=False)
            else:
                self._requeue(failure_of(code, hung=self._hung), costs_attempt=True)

    def _end_cancelled(self, session: Session) -> None:
        protocol.end_cancelled(session, self._claim.job_id, self._claim.fence)

    def _requeue(self, reason: Failure, *, costs_attempt: bool, delay_s: float = 0.0) -> None:
        job_id, fence, kind = self._claim.job_id, self._claim.fence, self._claim.kind
        status = self._lease.write(
            lambda session: protocol.requeue(
                session, job_id, fence, reason, costs_attempt=costs_attempt, delay_s=delay_s
            )
        )
        log.info("job_given_back", job_id=job_id, reason=reason.code, status=status)
        if status is JobStatus.QUEUED and not delay_s:
            self._lease.write(lambda session: announce(session, self._context.bell, job_id, QUEUE_OF[kind]))
