"""Any order of claims, writes, deaths, sweeps and wishes leaves every job in one piece (hypothesis)."""

from __future__ import annotations

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import func, select, update

from app.database.clock import database_now
from app.database.session import create_database_engine, create_sessions
from app.database.tables import DeviceLease, Job, JobMetric, JobTransition, Model, OutboxRow, Table
from app.jobs import protocol
from app.jobs.protocol import Claim, Device, Failure, LostLeaseError
from app.jobs.states import ENDED, OWNED, TRANSITIONS, JobKind, JobStatus
from app.settings import Settings
from detection.device_choice import CPU

REASON = Failure("worker_lost", "the worker was lost", retryable=True)


DEVICES = {
    CPU: Device(CPU, "processor", 64),
    "0": Device("0", "card", 16, "GPU-0"),
    "1": Device("1", "card", 16, "GPU-1"),
    "2": Device("2", "card", 16, "GPU-2"),
}
CHOICES = [CPU, "0", "1", "0,1", "1,2", "0,1,2"]


class JobMachine(RuleBasedStateMachine):
    """Several workers hold claims, old and new, and all of them try to write."""

    jobs: Bundle[str] = Bundle("jobs")
    claims: Bundle[Claim] = Bundle("claims")

    @initialize()
    def open_database(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="harrier-machine-"))
        self.engine = create_database_engine(Settings(home=self.home))
        Table.metadata.create_all(self.engine)
        self.sessions = create_sessions(self.engine)
        self.newest_fence: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.dispose()
            shutil.rmtree(self.home)

    @rule(target=jobs)
    def submit(self) -> str:
        with self.sessions() as session:
            job = protocol.add_job(session, JobKind.TRAIN)
            session.commit()
            return job.id

    @rule(target=claims, job_id=jobs, numbers=st.sampled_from(CHOICES), host=st.sampled_from(["a", "b"]))
    def claim(self, job_id: str, numbers: str, host: str) -> Claim:
        before, devices = self._status(job_id), [DEVICES[number] for number in numbers.split(",")]
        all_free = not self._in_use() & set(numbers.split(",")) - {CPU}
        with self.sessions() as session:
            claim = protocol.claim_job(
                session, job_id, owner="worker", lease_s=45, host=host, devices=devices
            )
        assert (claim is not None) == (before is JobStatus.QUEUED and all_free)
        if claim is None:
            return Claim(job_id, JobKind.TRAIN, fence=-1, attempt=0)
        assert claim.fence > self.newest_fence.get(job_id, 0)
        self.newest_fence[job_id] = claim.fence
        return claim

    @rule(claim=claims)
    def heartbeat(self, claim: Claim) -> None:
        valid = self._is_valid(claim)
        with self.sessions() as session:
            try:
                orders = protocol.renew_lease(session, claim.job_id, claim.fence, lease_s=45)
                assert valid
                assert orders.cancel == (self._status(claim.job_id) is JobStatus.CANCELLING)
            except LostLeaseError:
                assert not valid

    @rule(claim=claims, first=st.integers(1, 5), length=st.integers(1, 4))
    def train_some_steps(self, claim: Claim, first: int, length: int) -> None:
        valid = self._is_valid(claim)
        with self.sessions() as session:
            try:
                protocol.begin_attempt_at(session, claim.job_id, claim.fence, first - 1)
                rows = [(step, 0, {"loss": 1.0}) for step in range(first, first + length)]
                protocol.report(session, claim.job_id, claim.fence, series=rows)
                protocol.note_checkpoint(session, claim.job_id, claim.fence, first + length - 1)
                assert valid
            except LostLeaseError:
                assert not valid

    @rule(claim=claims)
    def publish(self, claim: Claim) -> None:
        valid = self._is_valid(claim)
        with self.sessions() as session:
            session.add(
                Model(
                    name="model",
                    job_id=claim.job_id,
                    architecture="yolox-nano",
                    classes=["a"],
                    input_size=[64, 64],
                    record={},
                    parameters=1,
                    storage_prefix=f"models/{claim.fence}",
                )
            )
            try:
                protocol.succeed(session, claim.job_id, claim.fence, {})
                assert valid
            except LostLeaseError:
                assert not valid
        if valid:
            assert self._status(claim.job_id) is JobStatus.SUCCEEDED

    @rule(claim=claims, how=st.sampled_from(["fail", "requeue", "drain", "cancelled"]))
    def give_up(self, claim: Claim, how: str) -> None:
        valid = self._is_valid(claim)
        with self.sessions() as session:
            try:
                if how == "fail":
                    protocol.fail(session, claim.job_id, claim.fence, REASON)
                elif how == "cancelled":
                    protocol.end_cancelled(session, claim.job_id, claim.fence)
                else:
                    costs = how == "requeue"
                    protocol.requeue(session, claim.job_id, claim.fence, REASON, costs_attempt=costs)
                assert valid
            except LostLeaseError:
                assert not valid

    @rule(job_id=jobs)
    def owner_dies_and_is_swept(self, job_id: str) -> None:
        with self.sessions() as session:
            session.execute(
                update(Job)
                .where(Job.id == job_id, Job.status.in_(OWNED))
                .values(lease_until=database_now() - 1)
            )
            session.commit()
            expired = protocol.expired_jobs(session)
            for _ in range(2):  # two sweeps do no harm
                for found, fence in expired:
                    protocol.requeue_expired(session, found, fence)
            assert protocol.expired_jobs(session) == []

    @rule(job_id=jobs, wish=st.sampled_from(["cancel", "finish", "resume"]))
    def user_wishes(self, job_id: str, wish: str) -> None:
        before = self._status(job_id)
        with self.sessions() as session:
            if wish == "cancel":
                assert (protocol.request_cancel(session, job_id) is None) == (before in ENDED)
            elif wish == "finish":
                assert protocol.request_finish(session, job_id) == (before is JobStatus.RUNNING)
            else:
                resumable = before in (JobStatus.FAILED, JobStatus.CANCELLED)
                assert protocol.resume(session, job_id) == resumable

    @invariant()
    def every_job_took_a_legal_path(self) -> None:
        with self.sessions() as session:
            for job in session.scalars(select(Job)):
                query = select(JobTransition.status).where(JobTransition.job_id == job.id)
                path = [JobStatus(status) for status in session.scalars(query.order_by(JobTransition.id))]
                assert path[0] is JobStatus.QUEUED
                assert all(later in TRANSITIONS[earlier] for earlier, later in pairwise(path))
                assert path[-1] == job.status

    @invariant()
    def rows_fit_together(self) -> None:
        with self.sessions() as session:
            waiting = set(session.scalars(select(OutboxRow.job_id)))
            for job in session.scalars(select(Job)):
                assert (job.id in waiting) == (job.status == JobStatus.QUEUED)
                assert (job.lease_until is not None) == (job.status in OWNED)
                assert (job.ended_at is not None) == (job.status in ENDED)
                models = select(func.count()).select_from(Model).where(Model.job_id == job.id)
                assert session.scalar(models) == (1 if job.status == JobStatus.SUCCEEDED else 0)
                query = select(JobMetric.step).where(JobMetric.job_id == job.id)
                steps = list(session.scalars(query.order_by(JobMetric.step)))
                assert len(steps) == len(set(steps))

    @invariant()
    def no_two_owned_jobs_hold_one_device(self) -> None:
        with self.sessions() as session:
            owned = session.scalars(select(Job).where(Job.status.in_(OWNED))).all()
            leased = {each.uuid: each.job_id for each in protocol.leased_devices(session)}
            num_rows = session.scalar(select(func.count()).select_from(DeviceLease))
        held = [(device["device"], job.id) for job in owned for device in job.devices or ()]
        expected = [(f"GPU-{number}", job_id) for number, job_id in held if number != CPU]
        assert len(expected) == len(dict(expected)), "shared"
        assert leased == dict(expected)
        assert num_rows == len(expected), "nothing is left behind"

    def _in_use(self) -> set[str]:
        with self.sessions() as session:
            return {each.uuid.removeprefix("GPU-") for each in protocol.leased_devices(session)}

    def _status(self, job_id: str) -> JobStatus:
        with self.sessions() as session:
            return JobStatus(session.scalars(select(Job.status).where(Job.id == job_id)).one())

    def _is_valid(self, claim: Claim) -> bool:
        with self.sessions() as session:
            query = select(Job.fence, Job.status).where(Job.id == claim.job_id)
            row = session.execute(query).one()
        return row.fence == claim.fence and JobStatus(row.status) in OWNED


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
