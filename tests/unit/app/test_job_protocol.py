"""The job protocol: one owner at a time, no write of an old one, and every job ends or lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from app.database.clock import database_now
from app.database.session import Sessions, create_database_engine, create_sessions
from app.database.tables import (
    Dataset,
    DeviceLease,
    Job,
    JobEvent,
    JobMetric,
    JobTransition,
    Model,
    OutboxRow,
    Table,
)
from app.jobs import protocol
from app.jobs.protocol import Claim, Device, Failure, LostLeaseError
from app.jobs.states import TRANSITIONS, JobKind, JobStatus, Queue
from app.settings import Settings

WORKER_LOST = Failure("worker_lost", "the worker was lost", retryable=True)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_database_engine(Settings(home=tmp_path))
    Table.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> Sessions:
    return create_sessions(engine)


def queued(sessions: Sessions, kind: JobKind = JobKind.TRAIN, dataset_id: str | None = None) -> str:
    with sessions() as session:
        job = protocol.add_job(session, kind, dataset_id=dataset_id)
        session.commit()
        return job.id


def claimed(sessions: Sessions, job_id: str, owner: str = "worker") -> protocol.Claim:
    with sessions() as session:
        claim = protocol.claim_job(session, job_id, owner=owner, lease_s=45)
    assert claim is not None
    return claim


def expire(sessions: Sessions, job_id: str) -> None:
    with sessions() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=database_now() - 1))
        session.commit()


def job(sessions: Sessions, job_id: str) -> Job:
    with sessions() as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


def steps_of(sessions: Sessions, job_id: str) -> list[int]:
    with sessions() as session:
        query = select(JobMetric.step).where(JobMetric.job_id == job_id).order_by(JobMetric.step)
        return list(session.scalars(query))


def test_of_many_claims_one_wins(sessions: Sessions) -> None:
    job_id = queued(sessions)
    with sessions() as session:
        claims = [protocol.claim_job(session, job_id, owner=f"w{n}", lease_s=45) for n in range(50)]
    assert [claim is not None for claim in claims] == [True] + [False] * 49
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(OutboxRow)) == 0


def test_a_claim_of_an_unknown_job_is_refused(sessions: Sessions) -> None:
    with sessions() as session:
        assert protocol.claim_job(session, "no-such-job", owner="worker", lease_s=45) is None


def test_every_write_of_an_older_attempt_is_refused(sessions: Sessions) -> None:
    job_id = queued(sessions)
    old = claimed(sessions, job_id, "paused")
    expire(sessions, job_id)
    with sessions() as session:
        assert protocol.requeue_expired(session, job_id, old.fence) is JobStatus.QUEUED
    new = claimed(sessions, job_id, "fresh")
    assert new.fence > old.fence
    before = job(sessions, job_id)
    writes = [
        lambda session: protocol.renew_lease(session, job_id, old.fence, lease_s=45),
        lambda session: protocol.read_orders(session, job_id, old.fence),
        lambda session: protocol.report(session, job_id, old.fence, stage="training"),
        lambda session: protocol.begin_attempt_at(session, job_id, old.fence, 0),
        lambda session: protocol.note_checkpoint(session, job_id, old.fence, 7),
        lambda session: protocol.succeed(session, job_id, old.fence, {}),
        lambda session: protocol.fail(session, job_id, old.fence, WORKER_LOST),
        lambda session: protocol.end_cancelled(session, job_id, old.fence),
        lambda session: protocol.requeue(session, job_id, old.fence, WORKER_LOST, costs_attempt=True),
    ]
    for write in writes:
        with sessions() as session, pytest.raises(LostLeaseError):
            write(session)
    after = job(sessions, job_id)
    assert (after.status, after.version, after.fence) == (JobStatus.RUNNING, before.version, new.fence)


def test_a_model_of_an_older_attempt_is_not_written(sessions: Sessions) -> None:
    job_id = queued(sessions)
    old = claimed(sessions, job_id)
    expire(sessions, job_id)
    with sessions() as session:
        protocol.requeue_expired(session, job_id, old.fence)
    late = Model(
        name="late",
        job_id=job_id,
        architecture="yolox-nano",
        classes=[],
        input_size=[64, 64],
        record={},
        parameters=1,
        storage_prefix="models/late",
    )
    with sessions() as session:
        session.add(late)
        with pytest.raises(LostLeaseError):
            protocol.succeed(session, job_id, old.fence, {})
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Model)) == 0


def test_a_lease_that_was_renewed_is_not_taken(sessions: Sessions) -> None:
    job_id = queued(sessions)
    claim = claimed(sessions, job_id)
    expire(sessions, job_id)
    with sessions() as session:
        assert protocol.expired_jobs(session) == [(job_id, claim.fence)]
        assert protocol.renew_lease(session, job_id, claim.fence, lease_s=45) == protocol.Orders(
            cancel=False, finish=False
        )
        assert protocol.requeue_expired(session, job_id, claim.fence) is None


def test_three_attempts_without_a_checkpoint_end_the_job(sessions: Sessions) -> None:
    job_id = queued(sessions)
    outcomes = []
    for _ in range(protocol.MAX_NO_PROGRESS):
        fence = claimed(sessions, job_id).fence
        with sessions() as session:
            outcomes.append(protocol.requeue(session, job_id, fence, WORKER_LOST, costs_attempt=True))
    assert outcomes == [JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.FAILED]
    failure = job(sessions, job_id).failure
    assert failure is not None
    assert failure["code"] == "worker_lost"


def test_only_a_checkpoint_that_is_further_than_ever_forgives(sessions: Sessions) -> None:
    job_id = queued(sessions)
    for step, expected in [(10, 1), (10, 2), (20, 1)]:
        fence = claimed(sessions, job_id).fence
        with sessions() as session:
            protocol.note_checkpoint(session, job_id, fence, step)
            protocol.requeue(session, job_id, fence, WORKER_LOST, costs_attempt=True)
        assert job(sessions, job_id).no_progress == expected
    assert job(sessions, job_id).checkpoint_step == 20


def test_attempts_are_bounded_even_with_progress(sessions: Sessions) -> None:
    job_id = queued(sessions)
    for attempt in range(1, protocol.MAX_ATTEMPTS + 1):
        fence = claimed(sessions, job_id).fence
        with sessions() as session:
            protocol.note_checkpoint(session, job_id, fence, attempt)
            status = protocol.requeue(session, job_id, fence, WORKER_LOST, costs_attempt=True)
    assert status is JobStatus.FAILED


def test_a_drain_costs_no_attempt(sessions: Sessions) -> None:
    job_id = queued(sessions)
    drained = Failure("drained", "the worker was stopped", retryable=True)
    for _ in range(2 * protocol.MAX_ATTEMPTS):
        fence = claimed(sessions, job_id).fence
        with sessions() as session:
            assert protocol.requeue(session, job_id, fence, drained, costs_attempt=False) is JobStatus.QUEUED
    drained_job = job(sessions, job_id)
    assert (drained_job.charged_attempts, drained_job.no_progress) == (0, 0)
    assert drained_job.attempt == 2 * protocol.MAX_ATTEMPTS, "every start has a number of its own"


def test_a_delayed_job_waits(sessions: Sessions) -> None:
    job_id = queued(sessions)
    fence = claimed(sessions, job_id).fence
    no_space = Failure("no_space", "the disk is full", retryable=True)
    with sessions() as session:
        protocol.requeue(session, job_id, fence, no_space, costs_attempt=True, delay_s=60)
        assert protocol.unanswered_bells(session, patience_s=0) == []
        assert protocol.waiting_line(session, Queue.GPU) == []
        assert protocol.claim_job(session, job_id, owner="worker", lease_s=45) is None
        session.execute(update(Job).values(not_before=database_now() - 1))
        session.commit()
        assert protocol.unanswered_bells(session, patience_s=0) == [(job_id, Queue.GPU)]
        assert [each.job_id for each in protocol.waiting_line(session, Queue.GPU)] == [job_id]
        assert protocol.waiting_line(session, Queue.CPU) == []
    claimed(sessions, job_id)


def test_cancel_while_queued_ends_at_once(sessions: Sessions) -> None:
    job_id = queued(sessions)
    with sessions() as session:
        assert protocol.request_cancel(session, job_id) is JobStatus.CANCELLED
        assert protocol.request_cancel(session, job_id) is None
        assert protocol.claim_job(session, job_id, owner="worker", lease_s=45) is None
        assert session.scalar(select(func.count()).select_from(OutboxRow)) == 0


def test_cancel_while_running_is_an_order(sessions: Sessions) -> None:
    job_id = queued(sessions)
    claim = claimed(sessions, job_id)
    with sessions() as session:
        assert protocol.request_cancel(session, job_id) is JobStatus.CANCELLING
        assert protocol.read_orders(session, job_id, claim.fence).cancel
        assert protocol.renew_lease(session, job_id, claim.fence, lease_s=45).cancel
        protocol.end_cancelled(session, job_id, claim.fence)
    assert job(sessions, job_id).status == JobStatus.CANCELLED
    with sessions() as session:
        assert protocol.ended_as(session, job_id, claim.fence) is JobStatus.CANCELLED


def test_a_job_whose_owner_dies_while_cancelling_is_cancelled(sessions: Sessions) -> None:
    job_id = queued(sessions)
    claim = claimed(sessions, job_id)
    with sessions() as session:
        protocol.request_cancel(session, job_id)
        expire(sessions, job_id)
        assert protocol.requeue_expired(session, job_id, claim.fence) is JobStatus.CANCELLED


def test_finish_is_for_running_trainings(sessions: Sessions) -> None:
    training, importing = queued(sessions), queued(sessions, JobKind.DATASET_IMPORT)
    with sessions() as session:
        assert not protocol.request_finish(session, training)
    fence = claimed(sessions, training).fence
    claimed(sessions, importing)
    with sessions() as session:
        assert protocol.request_finish(session, training)
        assert not protocol.request_finish(session, importing)
        assert protocol.read_orders(session, training, fence).finish


def test_resume_is_for_ended_trainings(sessions: Sessions) -> None:
    training, importing = queued(sessions), queued(sessions, JobKind.DATASET_IMPORT)
    with sessions() as session:
        assert not protocol.resume(session, training)
        protocol.request_cancel(session, training)
        protocol.request_cancel(session, importing)
        assert protocol.resume(session, training)
        assert not protocol.resume(session, importing)
    assert claimed(sessions, training).attempt == 1


def test_attempts_are_counted_on_after_a_resume(sessions: Sessions) -> None:
    job_id = queued(sessions)
    for number in (1, 2):
        claim = claimed(sessions, job_id)
        assert claim.attempt == number
        with sessions() as session:
            protocol.fail(session, job_id, claim.fence, WORKER_LOST)
            assert protocol.resume(session, job_id)
    assert (job(sessions, job_id).attempt, job(sessions, job_id).charged_attempts) == (2, 0)
    with sessions() as session:
        running = select(JobTransition.attempt).where(JobTransition.status == JobStatus.RUNNING)
        assert list(session.scalars(running.order_by(JobTransition.id))) == [1, 2]


def succeed(session: Session, claim: Claim) -> None:
    protocol.succeed(session, claim.job_id, claim.fence, {})


def fail(session: Session, claim: Claim) -> None:
    protocol.fail(session, claim.job_id, claim.fence, WORKER_LOST)


def give_back(session: Session, claim: Claim) -> None:
    protocol.requeue(session, claim.job_id, claim.fence, WORKER_LOST, costs_attempt=True)


def fail_and_resume(session: Session, claim: Claim) -> None:
    protocol.fail(session, claim.job_id, claim.fence, WORKER_LOST)
    protocol.resume(session, claim.job_id)


def cancel(session: Session, claim: Claim) -> None:
    protocol.request_cancel(session, claim.job_id)
    protocol.end_cancelled(session, claim.job_id, claim.fence)


@pytest.mark.parametrize(
    ("how", "stage", "device"),
    [
        (succeed, "done", "0"),
        (fail, "failed", "0"),
        (cancel, "cancelled", "0"),
        (give_back, "queued", None),
        (fail_and_resume, "queued", None),
    ],
    ids=["succeeded", "failed", "cancelled", "given back", "resumed"],
)
def test_what_is_true_of_a_running_job_ends_with_it(
    sessions: Sessions, how: Callable[[Session, Claim], None], stage: str, device: str | None
) -> None:
    job_id = queued(sessions)
    claim = claimed(sessions, job_id)
    with sessions() as session:
        protocol.report(
            session, job_id, claim.fence, stage="training", progress={"fraction": 0.5}, eta_s=9.0, device="0"
        )
        how(session, claim)
    row = job(sessions, job_id)
    assert (row.stage, row.eta_s, row.device) == (stage, None, device)
    assert row.progress == {"fraction": 1.0 if stage == "done" else 0.5}


def test_a_job_cancelled_while_queued_is_in_no_stage_of_work(sessions: Sessions) -> None:
    job_id = queued(sessions)
    with sessions() as session:
        protocol.request_cancel(session, job_id)
    assert job(sessions, job_id).stage == "cancelled"


def test_nobody_waits_for_the_end_of_what_is_being_cancelled(sessions: Sessions) -> None:
    job_id = queued(sessions)
    fence = claimed(sessions, job_id).fence
    with sessions() as session:
        protocol.report(session, job_id, fence, progress={"step": 1}, eta_s=9.0)
        protocol.request_cancel(session, job_id)
    assert job(sessions, job_id).eta_s is None
    with sessions() as session:
        protocol.report(session, job_id, fence, progress={"step": 2}, eta_s=8.0)
    assert job(sessions, job_id).eta_s is None


def test_the_series_has_one_row_per_step_over_a_resume(sessions: Sessions) -> None:
    job_id = queued(sessions)
    fence = claimed(sessions, job_id).fence
    with sessions() as session:
        protocol.report(session, job_id, fence, series=[(step, 0, {"loss": 1.0}) for step in range(1, 9)])
        protocol.note_checkpoint(session, job_id, fence, 5)
        protocol.requeue(session, job_id, fence, WORKER_LOST, costs_attempt=True)
    fence = claimed(sessions, job_id).fence
    with sessions() as session:
        protocol.begin_attempt_at(session, job_id, fence, 5)
    assert steps_of(sessions, job_id) == [1, 2, 3, 4, 5]
    with sessions() as session:
        rows = [(6, 0, {"loss": 0.5}), (6, 0, {"loss": 0.4}), (7, 1, {"loss": 0.3})]
        protocol.report(session, job_id, fence, series=rows)
        values = session.scalar(select(JobMetric.values).where(JobMetric.step == 6))
    assert steps_of(sessions, job_id) == [1, 2, 3, 4, 5, 6, 7]
    assert values == {"loss": 0.4}


def test_a_report_is_shown_and_streamed(sessions: Sessions) -> None:
    job_id = queued(sessions)
    fence = claimed(sessions, job_id).fence
    with sessions() as session:
        protocol.report(
            session,
            job_id,
            fence,
            stage="training",
            progress={"step": 1, "steps": 4},
            metrics={"loss": 2.0},
            eta_s=3.0,
            series=[(1, 0, {"loss": 2.0})],
            log_lines=["hello"],
        )
        kinds = list(session.scalars(select(JobEvent.kind).where(JobEvent.job_id == job_id)))
        newest = session.scalars(
            select(JobEvent.data).where(JobEvent.kind == "status").order_by(JobEvent.id.desc()).limit(1)
        ).one()
    row = job(sessions, job_id)
    assert (row.stage, row.progress["steps"], row.metrics, row.eta_s) == (
        "training",
        4,
        {"loss": 2.0},
        3.0,
    )
    assert kinds[-3:] == ["metric", "log", "status"]
    assert newest["status"] == "running"


def test_bells_are_rung_again_with_growing_patience(sessions: Sessions) -> None:
    job_id = queued(sessions)
    with sessions() as session:
        assert protocol.unanswered_bells(session, patience_s=30) == [(job_id, Queue.GPU)]
        protocol.note_ring(session, job_id)
        assert protocol.unanswered_bells(session, patience_s=30) == []
        for rings, silent_s, unanswered in [(1, 31, True), (2, 31, False), (2, 61, True), (50, 1900, False)]:
            session.execute(update(OutboxRow).values(rings=rings, rung_at=database_now() - silent_s))
            session.commit()
            assert bool(protocol.unanswered_bells(session, patience_s=30)) == unanswered


def test_a_sweep_is_bounded(sessions: Sessions) -> None:
    for _ in range(protocol.SWEEP_LIMIT + 5):
        queued(sessions)
    with sessions() as session:
        assert len(protocol.unanswered_bells(session, patience_s=0)) == protocol.SWEEP_LIMIT


@pytest.mark.parametrize("how", ["failed", "lost", "cancelled while queued"])
def test_a_dataset_is_never_left_importing(sessions: Sessions, how: str) -> None:
    with sessions() as session:
        dataset = Dataset(name="d", sha256="0" * 64)
        session.add(dataset)
        session.commit()
    job_id = queued(sessions, JobKind.DATASET_IMPORT, dataset.id)
    with sessions() as session:
        if how == "failed":
            fence = claimed(sessions, job_id).fence
            protocol.fail(session, job_id, fence, Failure("archive_path", "../x leaves the archive"))
        elif how == "lost":
            for _ in range(protocol.MAX_NO_PROGRESS):
                fence = claimed(sessions, job_id).fence
                expire(sessions, job_id)
                protocol.requeue_expired(session, job_id, fence)
        else:
            protocol.request_cancel(session, job_id)
        assert session.scalar(select(Dataset.status)) == "rejected"
        changes = list(session.scalars(select(JobEvent.data).where(JobEvent.job_id.is_(None))))
    assert changes == [{"status": "rejected"}]


@pytest.mark.parametrize("again", [False, True])
def test_texts_are_cut_before_they_are_stored(sessions: Sessions, again: bool) -> None:
    claim = claimed(sessions, queued(sessions))
    failure = Failure("weights_unusable", "x\0" * 1_000_000)
    with sessions() as session:
        protocol.report(session, claim.job_id, claim.fence, log_lines=["y" * 1_000_000])
        if again:
            protocol.requeue(session, claim.job_id, claim.fence, failure, costs_attempt=True)
        else:
            protocol.fail(session, claim.job_id, claim.fence, failure)
    with sessions() as session:
        reasons = list(session.scalars(select(JobTransition.reason)))
        notes = list(session.scalars(select(JobEvent.data)))
    row = job(sessions, claim.job_id)
    assert max(map(len, reasons)) < 20_000
    assert all(len(str(note)) < 20_000 and "\0" not in str(note) for note in [*notes, row.failure])
    assert (row.failure is None) is again


def test_transitions_are_written_down(sessions: Sessions) -> None:
    job_id = queued(sessions)
    fence = claimed(sessions, job_id).fence
    with sessions() as session:
        protocol.succeed(session, job_id, fence, {"model_id": "m"})
        query = select(JobTransition.status).where(JobTransition.job_id == job_id).order_by(JobTransition.id)
        path = [JobStatus(status) for status in session.scalars(query)]
        assert protocol.ended_as(session, job_id, fence) is JobStatus.SUCCEEDED
    assert path == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]
    assert all(later in TRANSITIONS[earlier] for earlier, later in pairwise(path))
    assert job(sessions, job_id).result == {"model_id": "m"}


CARDS = [Device(str(number), "Fast Card", 16 * 2**30, f"GPU-{number}") for number in range(2)]
PROCESSOR = Device("cpu", "Fast Core", 64 * 2**30)


def given(sessions: Sessions, job_id: str, *devices: Device, host: str = "here") -> protocol.Claim | None:
    with sessions() as session:
        return protocol.claim_job(session, job_id, owner="w", lease_s=45, host=host, devices=devices)


def leases(sessions: Sessions) -> dict[str, str]:
    with sessions() as session:
        return {each.uuid: each.job_id for each in protocol.leased_devices(session)}


def test_an_accelerator_is_leased_to_one_job(sessions: Sessions) -> None:
    first, second = queued(sessions), queued(sessions)
    assert given(sessions, first, *CARDS) is not None
    assert leases(sessions) == {"GPU-0": first, "GPU-1": first}
    for other in ({"host": "here"}, {"host": "a container on the same machine"}):
        assert given(sessions, second, CARDS[1], **other) is None
    row = job(sessions, second)
    assert (row.status, row.attempt, row.device, row.devices) == (JobStatus.QUEUED, 0, None, None)
    row = job(sessions, first)
    assert row.device == "0,1"
    assert row.devices == [
        {"device": "0", "name": "Fast Card", "memory_bytes": 16 * 2**30},
        {"device": "1", "name": "Fast Card", "memory_bytes": 16 * 2**30},
    ]


def test_the_cpu_is_never_leased(sessions: Sessions) -> None:
    jobs = [queued(sessions) for _ in range(3)]
    assert all(given(sessions, each, PROCESSOR) for each in jobs)
    assert leases(sessions) == {}
    assert job(sessions, jobs[0]).device == "cpu"


@pytest.mark.parametrize("how", [succeed, fail, cancel, give_back], ids=lambda how: how.__name__)
def test_a_device_is_free_when_its_job_is_not_owned_any_more(
    sessions: Sessions, how: Callable[[Session, Claim], None]
) -> None:
    first, second = queued(sessions), queued(sessions)
    claim = given(sessions, first, CARDS[0])
    assert claim is not None
    with sessions() as session:
        how(session, claim)
        assert session.scalar(select(func.count()).select_from(DeviceLease)) == 0
    assert given(sessions, second, CARDS[0]) is not None


def test_the_device_of_a_silent_owner_is_free_once_a_sweep_has_taken_the_job(sessions: Sessions) -> None:
    first, second = queued(sessions), queued(sessions)
    claim = given(sessions, first, CARDS[0])
    assert claim is not None
    expire(sessions, first)
    assert given(sessions, second, CARDS[0]) is None, "its process may still compute"
    with sessions() as session:
        protocol.requeue_expired(session, first, claim.fence)
    assert given(sessions, second, CARDS[0]) is not None
    assert job(sessions, first).devices == []


def test_a_row_that_was_left_behind_does_not_count(sessions: Sessions) -> None:
    first, second = queued(sessions), queued(sessions)
    claim = given(sessions, first, CARDS[0])
    assert claim is not None
    with sessions() as session:
        session.execute(update(Job).where(Job.id == first).values(fence=Job.fence + 1))
        session.commit()
    assert leases(sessions) == {}
    assert given(sessions, second, CARDS[0]) is not None
    assert leases(sessions) == {"GPU-0": second}


def test_a_job_that_nobody_can_do_is_refused_while_it_is_queued(sessions: Sessions) -> None:
    refused, running = queued(sessions), queued(sessions)
    claimed(sessions, running)
    why = Failure("device_missing", "there is no such device", details={"devices": {"here": ["cpu"]}})
    with sessions() as session:
        assert protocol.refuse(session, refused, why)
        assert not protocol.refuse(session, refused, why)
        assert not protocol.refuse(session, running, why)
        assert session.scalar(select(func.count()).select_from(OutboxRow)) == 0
    row = job(sessions, refused)
    assert (row.status, row.attempt, row.failure) == (JobStatus.FAILED, 0, why.as_json())
    assert row.ended_at is not None
    assert given(sessions, refused) is None


def test_a_line_says_what_each_job_asks_for(sessions: Sessions) -> None:
    with sessions() as session:
        ids = [
            protocol.add_job(session, JobKind.TRAIN, config={"device": each}).id for each in ("0,1", "cpu")
        ]
        ids.append(protocol.add_job(session, JobKind.EVALUATE).id)
        protocol.add_job(session, JobKind.EXPORT)
        session.commit()
        line = protocol.waiting_line(session, Queue.GPU)
    assert [(each.job_id, each.device) for each in line] == list(
        zip(ids, ("0,1", "cpu", "auto"), strict=True)
    )
