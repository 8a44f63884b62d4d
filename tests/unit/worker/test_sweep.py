"""The sweep: nothing that was lost stays lost, and nothing is done twice."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from app.database.clock import database_now
from app.database.session import Sessions
from app.database.tables import Job, OutboxRow, Worker
from app.jobs import protocol
from app.jobs.protocol import Claim
from app.jobs.states import JobKind, JobStatus, Queue
from tests.unit.worker.conftest import RecordingBell
from worker import rounds
from worker import sweep as sweep_module
from worker.context import WorkerContext
from worker.registration import deregister_worker
from worker.rounds import Chore, Rounds
from worker.sweep import Sweep, Unheard


def queued(sessions: Sessions, kind: JobKind = JobKind.TRAIN) -> str:
    with sessions() as session:
        job = protocol.add_job(session, kind)
        session.commit()
        return job.id


def test_the_job_of_a_silent_worker_goes_back(context: WorkerContext, claim: Claim) -> None:
    sweep = Sweep(context)
    sweep.take_from_silent_owners()
    with context.sessions() as session:
        assert session.scalar(select(Job.status)) == JobStatus.RUNNING
        session.execute(update(Job).values(lease_until=database_now() - 1))
        session.commit()
    sweep.take_from_silent_owners()
    Sweep(context).take_from_silent_owners()
    with context.sessions() as session:
        job = session.scalars(select(Job)).one()
        assert (job.status, job.no_progress) == (JobStatus.QUEUED, 1)


def test_bells_are_rung_for_every_queue(context: WorkerContext, bell: RecordingBell) -> None:
    training, importing = queued(context.sessions), queued(context.sessions, JobKind.DATASET_IMPORT)
    sweep = Sweep(context)
    sweep.ring_again()
    sweep.ring_again()
    assert bell.rung == [(training, Queue.GPU), (importing, Queue.CPU)]


def test_a_bell_that_cannot_be_rung_is_not_noted(context: WorkerContext, bell: RecordingBell) -> None:
    bell.works = False
    queued(context.sessions)
    queued(context.sessions)
    Sweep(context).ring_again()
    assert len(bell.rung) == 1, "a broker that is away is not asked for every job"
    with context.sessions() as session:
        assert set(session.scalars(select(OutboxRow.rung_at))) == {None}


def test_a_job_whose_bell_nobody_heard_is_taken(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[object] = []
    monkeypatch.setattr(sweep_module, "take_jobs", taken.append)
    queued(context.sessions)
    sweep = Sweep(context)
    sweep.take_unheard_job()
    assert taken == []
    time.sleep(context.settings.bell_patience_s + 0.1)
    sweep.take_unheard_job()
    for thread in threading.enumerate():
        if thread.name == "keeper":
            thread.join(5)
    assert taken == [context]


def test_no_job_is_taken_while_no_device_is_free_or_the_worker_stops(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "take_jobs", lambda *_: pytest.fail("taken"))
    queued(context.sessions)
    sweep = Sweep(context)
    sweep._unheard = Unheard(patience_s=0)
    assert context.slots.take(("cpu",), "another")
    sweep.take_unheard_job()
    context.slots.give_back(("cpu",), "another")
    context.draining.set()
    sweep.take_unheard_job()


def test_waiting_begins_anew_with_every_other_head() -> None:
    unheard = Unheard(patience_s=0.05)
    assert not unheard.is_too_long("a")
    time.sleep(0.06)
    assert not unheard.is_too_long("b")
    assert not unheard.is_too_long(None)
    assert not unheard.is_too_long("b")
    time.sleep(0.06)
    assert unheard.is_too_long("b")


def test_a_worker_shows_that_it_is_there(context: WorkerContext) -> None:
    sweep = Sweep(context)
    sweep.register()
    sweep.register()
    with context.sessions() as session:
        row = session.scalars(select(Worker)).one()
        assert (row.name, row.queue, row.pid) == (context.name, "gpu", os.getpid())
        assert row.versions["torch"]
        assert row.memory["worker_bytes"] > 0
        deregister_worker(session, context)
        assert session.scalars(select(Worker)).all() == []


def test_a_chore_is_done_at_once_and_then_every_so_often() -> None:
    done = []
    chore = Chore(lambda: done.append(1), every_s=60)
    chore.do_if_due()
    chore.do_if_due()
    assert done == [1]
    assert 59 < chore.due_in_s() <= 60


@pytest.mark.parametrize(
    "error", [OperationalError("select 1", {}, Exception("away")), OSError("the object store refused")]
)
def test_a_chore_without_database_or_storage_is_tried_again(error: Exception) -> None:
    def fail() -> None:
        raise error

    chore = Chore(fail, every_s=0.0)
    chore.do_if_due()
    chore.do_if_due()


def test_rounds_go_on_until_they_are_stopped() -> None:
    done = threading.Event()
    thread = Rounds("test", [Chore(done.set, every_s=0.01)])
    thread.start()
    assert done.wait(5)
    thread.stop(timeout_s=5)
    assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_rounds_that_fail_end_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = threading.Event()

    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (os.getpid(), signal.SIGTERM)
        killed.set()

    monkeypatch.setattr(rounds.os, "kill", kill)
    thread = Rounds("test", [Chore(lambda: [][0], every_s=1)])
    thread.start()
    thread.join(5)
    assert killed.is_set()
