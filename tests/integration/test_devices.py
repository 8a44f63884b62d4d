"""Accelerators shared by the workers of one host: no two jobs meet, nobody waits for what it does not need.

The workers, the broker and the databases are real; the driver and the computing are pretended.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from app.database.clock import database_now
from app.database.session import Sessions
from app.database.tables import DeviceLease, Job
from app.jobs import protocol
from app.jobs.protocol import Device
from app.jobs.service import read_job
from app.jobs.states import OWNED, JobKind, JobStatus, Queue
from tests.services import Home, running_postgres, wait_until
from tests.serving import short_folder

PROGRAM = str(Path(__file__).resolve().parents[1] / "worker_with_cards.py")
CARDS = "GPU-a,GPU-b,GPU-c"


@pytest.fixture(params=["sqlite", "postgresql"])
def machine(request: pytest.FixtureRequest) -> Iterator[Home]:
    """A home on each kind of database, with a broker and no worker yet."""
    with ExitStack() as stack:
        address = {}
        if request.param == "postgresql":
            address["database_url"] = stack.enter_context(running_postgres()).address
        home = Home(stack.enter_context(short_folder()), **{"device": "auto", **address})
        stack.callback(home.close)
        home.start_broker()
        yield home


def start_worker(home: Home, **environment: str) -> subprocess.Popen[bytes]:
    """Start a worker that sees the cards."""
    return home.start_worker(Queue.GPU, program=(PROGRAM, CARDS), **environment)


def queued(home: Home, device: str) -> str:
    return home.queue_job(JobKind.TRAIN, config={"device": device})


def end(home: Home, job_id: str) -> Job:
    (home.settings.home_path / f"{job_id}.done").touch()
    ended = home.wait_for(job_id, timeout_s=30)
    assert ended.status == JobStatus.SUCCEEDED, ended.failure
    return ended


def runs(home: Home, job_id: str) -> Job:
    return home.wait_for(job_id, *OWNED, timeout_s=20)


def code_of(home: Home, job_id: str) -> tuple[str, str | None] | None:
    with home.sessions() as session:
        waiting = read_job(session, session.get_one(Job, job_id)).waiting_for
    return (waiting.code, waiting.job_id) if waiting else None


def test_workers_of_one_host_share_its_accelerators(machine: Home) -> None:
    start_worker(machine)
    start_worker(machine, CUDA_VISIBLE_DEVICES="2,1,0")  # its 0 is the other's 2
    first, second = queued(machine, "0"), queued(machine, "auto")
    for job_id in (first, second):
        runs(machine, job_id)
    both = queued(machine, "0,1,2")
    last = queued(machine, "1")
    on_cpu = queued(machine, "cpu")
    assert runs(machine, on_cpu).device == "cpu"
    wait_until(
        lambda: code_of(machine, both) in {("device_busy", first), ("device_busy", second)}, timeout_s=10
    )
    assert code_of(machine, last) == ("turn", both)
    held = [end(machine, job_id).result for job_id in (first, second)]
    assert len({str(each) for each in held}) == 2
    runs(machine, both)
    assert machine.job(last).status == JobStatus.QUEUED, "it does not overtake the one for several"
    assert sorted((end(machine, both).result or {})["held"]) == CARDS.split(",")
    runs(machine, last)
    end(machine, last)
    end(machine, on_cpu)
    nothing_is_leased(machine)


def test_a_killed_worker_leaves_its_accelerator_to_the_next(machine: Home) -> None:
    lost = start_worker(machine, HARRIER_DEVICE="1")
    job_id = queued(machine, "1")
    runs(machine, job_id)
    start_worker(machine)
    lost.send_signal(signal.SIGKILL)
    after = queued(machine, "1")
    wait_until(lambda: machine.job(job_id).attempt == 2, timeout_s=30)
    (machine.settings.home_path / "GPU-b").unlink(missing_ok=True)  # what a killed process cannot put away
    assert machine.job(after).status == JobStatus.QUEUED
    machine.wait_for(job_id, JobStatus.RUNNING, timeout_s=30)
    end(machine, job_id)
    end(machine, after)
    nothing_is_leased(machine)


def test_a_device_that_does_not_exist_is_a_failure(machine: Home) -> None:
    start_worker(machine, CUDA_VISIBLE_DEVICES="GPU-c,GPU-a")
    job_id = queued(machine, "2")
    failed = machine.wait_for(job_id, timeout_s=20)
    assert failed.status == JobStatus.FAILED
    assert failed.failure is not None
    assert failed.failure["code"] == "device_missing"
    assert "there are: auto, 0 (Card of GPU-c), 1 (Card of GPU-a), cpu on " in failed.failure["message"]


def test_claims_at_the_same_moment_never_share(machine: Home) -> None:
    """Threads claim jobs on a few devices, lose them, and end them; look at the owned ones throughout."""
    cards = [Device(str(number), "card", 16, f"GPU-{number}") for number in range(3)]
    choices = [cards[:1], cards[1:2], cards[:2], cards[1:], cards]
    with machine.sessions() as session:
        ids = [protocol.add_job(session, JobKind.TRAIN).id for _ in range(10)]
        session.commit()
    shared: list[object] = []
    threads = [
        threading.Thread(target=_claim_all, args=(machine.sessions, ids, choices[index:], shared))
        for index in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert shared == []
    with machine.sessions() as session:
        assert set(session.scalars(select(Job.attempt))) == {2}
        assert set(session.scalars(select(Job.status))) == {JobStatus.SUCCEEDED}
    nothing_is_leased(machine)


def _claim_all(sessions: Sessions, ids: list[str], choices: list[list[Device]], shared: list[object]) -> None:
    for job_id, devices in zip(ids, cycle(choices), strict=False):
        while (claim := _claim(sessions, job_id, devices)) is not None:
            with sessions() as session:
                query = select(Job.devices).where(Job.status.in_(OWNED))
                held = [each["device"] for devices in session.scalars(query) for each in devices or ()]
            shared.extend([held] if len(held) != len(set(held)) else [])
            with sessions() as session:
                if claim.attempt > 1:
                    protocol.succeed(session, job_id, claim.fence, {})
                    continue
                session.execute(update(Job).where(Job.id == job_id).values(lease_until=database_now() - 1))
                session.commit()
                protocol.requeue_expired(session, job_id, claim.fence)


def _claim(sessions: Sessions, job_id: str, devices: list[Device]) -> protocol.Claim | None:
    """Try until the job is claimed; None when it has ended, or is somebody else's."""
    while True:
        with sessions() as session:
            claim = protocol.claim_job(session, job_id, owner="w", lease_s=45, devices=devices)
        with sessions() as session:
            if claim is not None or session.get_one(Job, job_id).status != JobStatus.QUEUED:
                return claim


def nothing_is_leased(home: Home) -> None:
    def is_so() -> bool:
        with home.sessions() as session:
            return session.scalar(select(func.count()).select_from(DeviceLease)) == 0

    wait_until(is_so, timeout_s=10)
