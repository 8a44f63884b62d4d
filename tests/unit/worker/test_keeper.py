"""The keeper and its child, tried with small real processes instead of jobs."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psutil
import pytest
import structlog
from sqlalchemy import select, update

from app.database.clock import database_now
from app.database.tables import Job, JobTransition
from app.jobs import protocol
from app.jobs.protocol import Device
from app.jobs.states import JobKind, JobStatus, Queue
from tests.services import wait_until
from tests.unit.worker.conftest import RecordingBell
from worker import child as child_module
from worker import keeper as keeper_module
from worker.context import WorkerContext
from worker.keeper import keep
from worker.slots import Slots

ON_CPU = ("cpu",)
READY = "import os, signal, socket, subprocess, sys, time\nline = socket.socket(fileno=0)\nline.send(b'.')\n"
OBEYS = READY + "sys.exit({{b'c': 64, b'd': 143, b'f': 1}}[line.recv(1)])"
IGNORES = READY + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
LEAVES_A_GRANDCHILD = (
    READY + "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)"
)
LAST_WORD = "line.send(b'e')\n"
ENDS_ITS_JOB = (
    READY
    + LAST_WORD
    + """
from app.database.session import create_database_engine, create_sessions
from app.jobs import protocol
from app.settings import Settings
with create_sessions(create_database_engine(Settings(home={home!r})))() as session:
    protocol.succeed(session, {job_id!r}, {fence}, {{}})
time.sleep({lingers_s})
"""
)

FAILS_ITS_JOB = ENDS_ITS_JOB.replace("succeed(", "fail(").replace(
    "{{}})", "protocol.Failure('video_unusable', 'no frame'))"
)
GIVES_ITS_JOB_BACK = ENDS_ITS_JOB.replace("succeed(", "requeue(").replace(
    "{{}})",
    "protocol.Failure('no_space', 'the disk is full', retryable=True), costs_attempt=True, delay_s=60)",
)


@pytest.fixture
def children(context: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that says what the children of this test run."""

    def run(script: str, **values: Any) -> None:
        def command(job_id: str, fence: int, device: str) -> list[str]:
            home = str(context.settings.home_path)
            return [
                sys.executable,
                "-c",
                script.format(home=home, job_id=job_id, fence=fence, **values),
            ]

        monkeypatch.setattr(child_module, "job_command", command)

    return run


@pytest.fixture
def job_id(context: WorkerContext) -> str:
    with context.sessions() as session:
        job = protocol.add_job(session, JobKind.TRAIN)
        session.commit()
        return job.id


BEFORE: set[psutil.Process] = set()
"""Children of this process that other tests have left: the server that starts their ranks."""


@pytest.fixture(autouse=True)
def _know_other_children() -> None:
    BEFORE.update(psutil.Process().children())


def own_children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child not in BEFORE]


def kept(job_id: str, context: WorkerContext) -> threading.Thread:
    thread = threading.Thread(target=keep, args=(job_id, context, ON_CPU), daemon=True)
    thread.start()
    wait_until(lambda: job(context).status == JobStatus.RUNNING, timeout_s=10)
    wait_until(own_children, timeout_s=10)
    return thread


def job(context: WorkerContext) -> Job:
    with context.sessions() as session:
        return session.scalars(select(Job)).one()


def reasons(context: WorkerContext) -> list[str]:
    with context.sessions() as session:
        return list(session.scalars(select(JobTransition.reason).order_by(JobTransition.id)))


def ended(thread: threading.Thread, timeout_s: float = 20) -> None:
    thread.join(timeout_s)
    assert not thread.is_alive()
    assert own_children() == []


def test_a_crash_goes_back_to_the_queue_and_is_announced(
    job_id: str, context: WorkerContext, children: Callable[..., None], bell: RecordingBell
) -> None:
    children("raise SystemExit(1)")
    assert keep(job_id, context, ON_CPU)
    assert (job(context).status, job(context).no_progress) == (JobStatus.QUEUED, 1)
    assert bell.rung == [(job_id, Queue.GPU)]
    assert context.slots.all_free
    assert keep(job_id, context, ON_CPU)
    assert keep(job_id, context, ON_CPU)
    assert job(context).status == JobStatus.FAILED
    assert not keep(job_id, context, ON_CPU), "it has ended"
    assert len(bell.rung) == 2


def test_what_was_uploaded_goes_when_the_job_is_not_tried_again(
    context: WorkerContext, children: Callable[..., None]
) -> None:
    context.storage.write("uploads/v/video", io.BytesIO(b"video"))
    with context.sessions() as session:
        job_id = protocol.add_job(session, JobKind.DETECT_VIDEO, config={"upload_key": "uploads/v/video"}).id
        session.commit()
    children("raise SystemExit(1)")
    for status, left in [
        (JobStatus.QUEUED, ["uploads/v/video"]),
        (JobStatus.QUEUED, ["uploads/v/video"]),
        (JobStatus.FAILED, []),
    ]:
        assert keep(job_id, context, ON_CPU)
        assert (job(context).status, list(context.storage.keys("uploads/"))) == (status, left)


def test_an_upload_that_cannot_be_removed_is_left_to_the_janitor(
    context: WorkerContext, children: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(prefix: str) -> None:
        raise OSError("the object store refused")

    with context.sessions() as session:
        job_id = protocol.add_job(session, JobKind.DETECT_VIDEO, config={"upload_key": "uploads/v/video"}).id
        session.commit()
    monkeypatch.setattr(context.storage, "delete_all", refuse)
    children(FAILS_ITS_JOB, lingers_s=0)
    assert keep(job_id, context, ON_CPU)
    assert job(context).status == JobStatus.FAILED


def test_a_killed_process_says_so(job_id: str, context: WorkerContext, children: Callable[..., None]) -> None:
    children("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    keep(job_id, context, ON_CPU)
    assert "want of memory" in reasons(context)[-1]


@pytest.mark.parametrize("lingers_s", [0, 3])
def test_a_job_that_ended_itself_is_left_alone(
    job_id: str, context: WorkerContext, children: Callable[..., None], lingers_s: float
) -> None:
    children(ENDS_ITS_JOB, lingers_s=lingers_s)
    keep(job_id, context, ON_CPU)
    assert job(context).status == JobStatus.SUCCEEDED
    assert len(reasons(context)) == 3


GOES_HOME = "print('at home', flush=True)\n"


@pytest.mark.parametrize(
    ("script", "is_lost"),
    [(GIVES_ITS_JOB_BACK, False), (GIVES_ITS_JOB_BACK.replace(LAST_WORD, ""), True)],
    ids=["given back", "taken"],
)
def test_a_lease_that_was_given_back_is_not_lost(
    job_id: str, context: WorkerContext, children: Callable[..., None], script: str, is_lost: bool
) -> None:
    children(script + GOES_HOME, lingers_s=2)
    with structlog.testing.capture_logs() as lines:
        keep(job_id, context, ON_CPU)
    assert job(context).status == JobStatus.QUEUED
    assert ("lease_lost" in [line["event"] for line in lines]) is is_lost
    log = context.settings.job_logs / f"{job_id}.log"
    assert ("at home" in log.read_text()) is not is_lost, "what has lost its job is ended at once"


def test_a_cancel_is_passed_on(job_id: str, context: WorkerContext, children: Callable[..., None]) -> None:
    children(OBEYS)
    thread = kept(job_id, context)
    with context.sessions() as session:
        protocol.request_cancel(session, job_id)
    ended(thread)
    assert job(context).status == JobStatus.CANCELLED


def test_a_cancel_that_is_not_obeyed_is_enforced(
    job_id: str, context: WorkerContext, children: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "CANCEL_GRACE_S", 0.3)
    children(IGNORES)
    thread = kept(job_id, context)
    with context.sessions() as session:
        protocol.request_cancel(session, job_id)
    ended(thread)
    assert job(context).status == JobStatus.CANCELLED


def test_a_finish_is_passed_on(job_id: str, context: WorkerContext, children: Callable[..., None]) -> None:
    children(OBEYS)
    thread = kept(job_id, context)
    with context.sessions() as session:
        assert protocol.request_finish(session, job_id)
    ended(thread)
    assert job(context).no_progress == 1, "this child crashes when it is told to finish"


def test_a_drain_costs_nothing(
    job_id: str, context: WorkerContext, children: Callable[..., None], bell: RecordingBell
) -> None:
    children(OBEYS)
    thread = kept(job_id, context)
    context.draining.set()
    ended(thread)
    row = job(context)
    assert (row.status, row.charged_attempts, row.no_progress) == (JobStatus.QUEUED, 0, 0)
    assert bell.rung == [(job_id, Queue.GPU)]
    assert not keep(job_id, context, ON_CPU), "a worker that stops takes nothing more"


def test_a_drain_that_is_not_obeyed_in_time_costs_nothing_either(
    job_id: str, context: WorkerContext, children: Callable[..., None]
) -> None:
    quick = context.settings.model_copy(update={"stop_grace_s": 0.3})
    object.__setattr__(context, "settings", quick)
    children(IGNORES)
    thread = kept(job_id, context)
    context.draining.set()
    ended(thread)
    assert job(context).no_progress == 0


def test_a_process_that_hangs_is_ended_and_its_stacks_are_kept(
    job_id: str, context: WorkerContext, children: Callable[..., None]
) -> None:
    quick = context.settings.model_copy(update={"hang_s": 1.0, "stop_grace_s": 5.0})
    object.__setattr__(context, "settings", quick)
    children(READY + "import faulthandler; faulthandler.register(signal.SIGUSR1)\nwhile True: time.sleep(1)")
    keep(job_id, context, ON_CPU)
    assert job(context).no_progress == 1
    assert "no sign of progress" in reasons(context)[-1]
    log = context.settings.home_path / "logs" / "jobs" / f"{job_id}.log"
    assert "most recent call first" in log.read_text()


def test_a_lost_lease_ends_the_process_and_writes_nothing(
    job_id: str, context: WorkerContext, children: Callable[..., None]
) -> None:
    children(IGNORES)
    thread = kept(job_id, context)
    with context.sessions() as session:
        session.execute(update(Job).values(fence=Job.fence + 1, lease_until=database_now() + 45))
        session.commit()
    ended(thread)
    assert job(context).status == JobStatus.RUNNING


def test_grandchildren_end_with_the_job(
    job_id: str, context: WorkerContext, children: Callable[..., None]
) -> None:
    children(LEAVES_A_GRANDCHILD)
    keep(job_id, context, ON_CPU)
    log = context.settings.home_path / "logs" / "jobs" / f"{job_id}.log"
    grandchild = int(log.read_text())
    wait_until(lambda: not psutil.pid_exists(grandchild) or is_zombie(grandchild), timeout_s=5)


def is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_lease_is_renewed_while_the_process_runs(
    job_id: str, context: WorkerContext, children: Callable[..., None]
) -> None:
    children(OBEYS)
    thread = kept(job_id, context)
    first = job(context).lease_until or 0.0
    time.sleep(2 * context.settings.lease_s)
    with context.sessions() as session:
        assert protocol.expired_jobs(session) == []
    assert (job(context).lease_until or 0.0) > first
    context.draining.set()
    ended(thread)


def test_a_process_that_cannot_be_started_gives_the_job_back(
    job_id: str, context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "job_command", lambda *_: ["/no/such/program"])
    assert keep(job_id, context, ON_CPU)
    row = job(context)
    assert (row.status, row.no_progress) == (JobStatus.QUEUED, 1)
    assert row.not_before is not None, "the host needs time"
    assert context.slots.all_free


def test_a_worker_without_a_free_device_takes_no_job(
    job_id: str, context: WorkerContext, children: Callable[..., None]
) -> None:
    context.slots.take(ON_CPU, "another")
    assert not keep(job_id, context, ON_CPU)
    assert job(context).status == JobStatus.QUEUED


def test_a_job_process_sees_the_accelerators_as_its_worker_does(
    job_id: str, context: WorkerContext, children: Callable[..., None]
) -> None:
    children("import os; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)")
    keep(job_id, replace(context, device_environment={"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a"}), ON_CPU)
    log = context.settings.job_logs / f"{job_id}.log"
    assert log.read_text() == "GPU-b,GPU-a\n"


def test_a_job_is_claimed_with_what_it_computes_on(
    job_id: str, context: WorkerContext, children: Callable[..., None]
) -> None:
    card = Device("1", "Fast Card", 16, "GPU-b")
    another = replace(context, slots=Slots([card]))
    children(ENDS_ITS_JOB, lingers_s=0)
    assert keep(job_id, another, ("1",))
    assert (job(context).device, job(context).devices) == ("1", [card.as_json()])
    assert another.slots.all_free
