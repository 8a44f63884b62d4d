"""A database, a job in it and a worker around it, without any process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.database.session import Sessions, create_database_engine, create_sessions
from app.database.tables import Table
from app.jobs import protocol
from app.jobs.protocol import Claim
from app.jobs.states import JobKind, Queue
from app.settings import Settings
from app.storage import open_storage
from worker.context import WorkerContext
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
        slots=Slots(["cpu"]),
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
