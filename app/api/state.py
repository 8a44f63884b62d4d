"""What one API process holds while it runs: settings, database, files, bell; made once, in one place."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from sqlalchemy import Engine

from app.api.events import EventHub
from app.api.measures import Measures
from app.api.seats import Seats
from app.database.changes import Changes, open_changes
from app.database.session import Sessions, create_database_engine, create_sessions
from app.datasets.contents import DatasetContents
from app.detect.engine_client import EngineClient
from app.detect.service import Detection
from app.settings import Settings
from app.storage import Storage, open_storage
from app.task_queue import Bell, CeleryBell
from app.usage.service import check_room


@dataclass(frozen=True, kw_only=True)
class State:
    settings: Settings
    database: Engine
    sessions: Sessions
    """For writing: on SQLite a transaction waits for its turn from the start."""
    reading: Sessions
    """For reading only: never waits for a writer."""
    changes: Changes
    """Tells the event loop in passing whether anybody has committed."""
    storage: Storage
    bell: Bell
    engine: EngineClient
    detection: Detection
    contents: DatasetContents
    events: EventHub
    measures: Measures
    seats: Seats = field(default_factory=Seats)
    draining: threading.Event = field(default_factory=threading.Event)
    """Set when the server was told to stop: streams end, and /readyz says so."""

    def check_room(self, more_bytes: int) -> None:
        """Refuse an upload that the quota has no room for, while it is still on its way."""
        with self.reading() as session:
            check_room(session, self.settings, more_bytes)

    def drain(self) -> None:
        """Begin to stop: nothing new is promised, those who only watch are sent away."""
        self.draining.set()
        self.events.close()

    async def close(self) -> None:
        await self.events.stop()
        await self.detection.watch.stop()
        await self.engine.close()
        if isinstance(self.bell, CeleryBell):
            self.bell.close()
        self.changes.close()
        self.database.dispose()


def create_state(
    settings: Settings, *, bell: Bell | None = None, engine: EngineClient | None = None
) -> State:
    """Wire everything up; nothing is connected and nothing is started yet."""
    database = create_database_engine(settings)
    sessions = create_sessions(database)
    reading = create_sessions(database.execution_options(read_only=True))
    changes = open_changes(settings)
    storage = open_storage(settings)
    measures = Measures(reading)
    engine = engine or EngineClient(settings)
    return State(
        settings=settings,
        database=database,
        sessions=sessions,
        reading=reading,
        changes=changes,
        storage=storage,
        bell=bell or CeleryBell(settings),
        engine=engine,
        detection=Detection(settings, engine, reading, changes, measures.registry),
        contents=DatasetContents(storage),
        events=EventHub(reading, changes),
        measures=measures,
    )
