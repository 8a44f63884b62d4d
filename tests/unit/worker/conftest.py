"""A database, a job in it and a worker around it, without any process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.database.session import Sessions, create_database_engine, create_sessions
from app.database.tables import Table
from app.jobs import protocol
from app.jobs.protocol import Claim
from app.jobs.states import JobKind, Queue
from app.settings import Settings
from app.storage import open_storage
from worker.attempt import Attempt, find_facts
from worker.context import WorkerContext
from worker.control import Control
from worker.lease import Lease
from worker.report import JobReport
from worker.slots import Slots


class RecordingBell:
    """Remembers what it was rung for."""

    def __init__(self, *, works: bool = True) -> None:
        self.rung: list[tuple[str, Queue]] = []
        self.works = works

    def ring(self, job_id: str, queue: Queue) -> bool:
        self.rung.append((job_id, queue))
        return self.works


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, device="cpu", lease_s=1.0, heartbeat_s=0.2, bell_patience_s=0.5)


@pytest.fixture
def sessions(settings: Settings) -> Iterator[Sessions]:
    engine = create_database_engine(settings)
    Table.metadata.create_all(engine)
    yield create_sessions(engine)
    engine.dispose()


@pytest.fixture
def bell() -> RecordingBell:
    return RecordingBell()


@pytest.fixture
def context(settings: Settings, sessions: Sessions, bell: RecordingBell) -> WorkerContext:
    return WorkerContext(
        name="gpu@here:1",
        queue=Queue.GPU,
        settings=settings,
        sessions=sessions,
        storage=open_storage(settings),
        bell=bell,
        slots=Slots(),
        host="here",
    )


@pytest.fixture
def claim(sessions: Sessions) -> Claim:
    """A training that somebody has just claimed."""
    with sessions() as session:
        job = protocol.add_job(session, JobKind.TRAIN, name="a training")
        session.commit()
        claimed = protocol.claim_job(session, job.id, owner="gpu@here:1", lease_s=45)
    assert claimed is not None
    return claimed


OpenAttempt = Callable[..., Attempt]


@pytest.fixture
def open_attempt(context: WorkerContext, tmp_path: Path) -> Iterator[OpenAttempt]:
    """Return a function that queues a job, claims it, and opens an attempt at it in this process."""
    with ExitStack() as stack:

        def opened(kind: JobKind = JobKind.TRAIN, **values: Any) -> Attempt:
            with context.sessions() as session:
                job = protocol.add_job(session, kind, name="a training", **values)
                session.commit()
                claimed = protocol.claim_job(session, job.id, owner=context.name, lease_s=45)
                assert claimed is not None
                facts = find_facts(session, claimed.job_id, claimed.fence)
                session.rollback()
            _, theirs = (stack.enter_context(line) for line in socket.socketpair())
            lease = Lease(context.sessions, claimed.job_id, claimed.fence, patience_s=1.0)
            control = Control(theirs)
            report = JobReport(lease, control, timing={})
            stack.callback(report.close)
            scratch = tmp_path / "attempts" / claimed.job_id
            scratch.mkdir(parents=True)
            return Attempt(
                job=facts,
                device="cpu",
                settings=context.settings,
                storage=context.storage,
                lease=lease,
                control=control,
                report=report,
                scratch=scratch,
            )

        yield opened
