"""Which job is taken next, by several workers on one host, and which is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from app.database.session import Sessions
from app.database.tables import Job, utc_now
from app.jobs import protocol
from app.jobs.protocol import Device
from app.jobs.states import JobKind, JobStatus
from tests.fake_driver import FakeDriver
from worker import nvml, taking
from worker.context import WorkerContext
from worker.registration import register_worker
from worker.slots import Slots
from worker.taking import Turn, next_job, refuse_impossible, take_jobs

CARDS = {number: Device(number, "Fast Card", 16 * 2**30, f"GPU-{number}") for number in "0123"}


@pytest.fixture(autouse=True)
def four_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "pynvml", FakeDriver([f"GPU-{number}" for number in CARDS]))


@pytest.fixture
def worker(context: WorkerContext) -> Callable[..., WorkerContext]:
    """Return a function that makes workers with some of the host's accelerators."""

    def make(numbers: str = "01", *, name: str = "gpu@here:1", **values: object) -> WorkerContext:
        slots = Slots([CARDS[number] for number in numbers])
        return replace(context, name=name, slots=slots, draining=threading.Event(), **values)

    return make


MakeWorker = Callable[..., WorkerContext]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Each job that was done and what on; a job takes no time here."""
    done: list[tuple[str, str]] = []

    def keep(job_id: str, context: WorkerContext, numbers: tuple[str, ...]) -> bool:
        claim = claimed(context, job_id, numbers)
        with context.sessions() as session:
            protocol.succeed(session, job_id, claim.fence, {})
        done.append((job_id, ",".join(numbers)))
        return True

    monkeypatch.setattr(taking, "keep", keep)
    return done


def queued(sessions: Sessions, *devices: str) -> list[str]:
    with sessions() as session:
        ids = [protocol.add_job(session, JobKind.TRAIN, config={"device": each}).id for each in devices]
        session.commit()
        return ids


def claimed(context: WorkerContext, job_id: str, numbers: tuple[str, ...]) -> protocol.Claim:
    with context.sessions() as session:
        claim = protocol.claim_job(
            session,
            job_id,
            owner=context.name,
            lease_s=45,
            host=context.host,
            devices=context.slots.devices(numbers),
        )
    assert claim is not None
    return claim


def job(sessions: Sessions, job_id: str) -> Job:
    with sessions() as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


def test_the_oldest_job_comes_first(worker: MakeWorker, sessions: Sessions, done: list[object]) -> None:
    ids = queued(sessions, "auto", "1", "cpu", "0,1")
    take_jobs(worker())
    assert done == [(ids[0], "0"), (ids[1], "1"), (ids[2], "cpu"), (ids[3], "0,1")]


def test_what_another_worker_of_the_host_has_is_not_free(worker: MakeWorker, sessions: Sessions) -> None:
    first, second, third = queued(sessions, "0", "0", "auto")
    one, two = worker("01"), worker("10", name="gpu@here:2")
    assert next_job(one) == next_job(two) == Turn(first, ("0",))
    claim = claimed(one, first, ("0",))
    assert next_job(two) == Turn(third, ("1",)), "the second waits, and holds nobody up"
    with sessions() as session:
        protocol.succeed(session, first, claim.fence, {})
    assert next_job(two) == Turn(second, ("0",))


def test_a_device_that_a_process_has_not_left_yet_is_not_free_here(
    worker: MakeWorker, sessions: Sessions
) -> None:
    (job_id,) = queued(sessions, "0")
    context = worker()
    context.slots.take(("0",), "has just succeeded")
    assert next_job(context) is None
    context.slots.give_back(("0",), "has just succeeded")
    assert next_job(context) == Turn(job_id, ("0",))


def test_what_begins_when_another_has_ended_needs_no_bell(
    worker: MakeWorker, sessions: Sessions, done: list[object]
) -> None:
    context = worker("0")
    first, second = queued(sessions, "0", "0")
    taken = context.slots.take(("0",), "a job")
    take_jobs(context)
    assert taken
    assert done == []
    context.slots.give_back(("0",), "a job")
    take_jobs(context)
    assert done == [(first, "0"), (second, "0")]


def test_a_worker_that_stops_takes_nothing(
    worker: MakeWorker, sessions: Sessions, done: list[object]
) -> None:
    queued(sessions, "0")
    context = worker()
    context.draining.set()
    take_jobs(context)
    assert done == []


def test_a_job_that_is_lost_again_and_again_is_left_to_others(
    worker: MakeWorker, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(taking, "keep", lambda job_id, *_: tried.append(job_id))
    (job_id,) = queued(sessions, "0")
    take_jobs(worker())
    assert tried == [job_id]


def test_without_a_database_nothing_is_taken(worker: MakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OperationalError("select 1", {}, Exception("away"))

    monkeypatch.setattr(taking, "next_job", away)
    take_jobs(worker())


def test_a_device_that_no_worker_has_is_a_failure_that_lists_what_there_is(
    worker: MakeWorker, sessions: Sessions, done: list[object]
) -> None:
    with sessions() as session:
        register_worker(session, worker("3", name="gpu@there:1", host="there"))
    missing, several, twice, here, there = queued(sessions, "7", "1,3", "0,0", "0", "3")
    take_jobs(worker("01"))
    failure = job(sessions, missing).failure
    assert failure == {
        "code": "device_missing",
        "message": (
            "device '7': no live worker of the queue gpu has it; there are: "
            "auto, 0 (Fast Card), 1 (Fast Card), cpu on here; auto, 3 (Fast Card), cpu on there; "
            "choose `auto` or one of these"
        ),
        "retryable": False,
        "details": {
            "workers": [
                {"host": "here", "devices": ["auto", "0", "1", "cpu"]},
                {"host": "there", "devices": ["auto", "3", "cpu"]},
            ]
        },
    }
    assert "has all of these" in str(job(sessions, several).failure), "not on one worker"
    assert "named twice; there are: auto, 0, 1, cpu" in str(job(sessions, twice).failure)
    assert done == [(here, "0")]
    assert job(sessions, there).status == JobStatus.QUEUED, "that worker takes it"


def test_a_device_of_a_worker_that_is_gone_counts_no_more(worker: MakeWorker, sessions: Sessions) -> None:
    with sessions() as session:
        register_worker(session, worker("3", name="gpu@there:1", host="there"))
    (job_id,) = queued(sessions, "3")
    refuse_impossible(worker("01", started_at=utc_now() - timedelta(hours=1)))
    assert job(sessions, job_id).status == JobStatus.QUEUED
    threading.Event().wait(1.1)  # longer than the lease
    refuse_impossible(worker("01", started_at=utc_now() - timedelta(hours=1)))
    assert job(sessions, job_id).status == JobStatus.FAILED


def test_a_job_that_ran_before_waits_for_its_worker_to_come_back(
    worker: MakeWorker, sessions: Sessions
) -> None:
    (job_id,) = queued(sessions, "3")
    gone = worker("3", name="gpu@there:1", host="there")
    claim = claimed(gone, job_id, ("3",))
    with sessions() as session:
        drained = protocol.Failure("drained", "the worker was stopped", retryable=True)
        protocol.requeue(session, job_id, claim.fence, drained, costs_attempt=False)
    refuse_impossible(worker("01"))
    assert job(sessions, job_id).status == JobStatus.QUEUED
    assert next_job(gone) == Turn(job_id, ("3",))


def test_a_job_that_is_older_than_its_worker_is_given_a_lease_s_time(
    worker: MakeWorker, sessions: Sessions
) -> None:
    (job_id,) = queued(sessions, "3")
    context = worker("01", started_at=utc_now())
    refuse_impossible(context)
    assert job(sessions, job_id).status == JobStatus.QUEUED, "after an outage its worker may come up second"
    threading.Event().wait(context.settings.lease_s + 0.1)
    refuse_impossible(context)
    assert job(sessions, job_id).status == JobStatus.FAILED
