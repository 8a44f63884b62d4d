"""A worker ends with the status that is due, however long its threads take to stop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from app.database.tables import Worker
from detection.errors import DeviceError
from worker import __main__ as entry
from worker import prompt_stop
from worker.context import WorkerContext
from worker.registration import register_worker
from worker.rounds import Chore, Rounds

PATIENCE_S = 20.0
CHORE_S = 1.0
"""Of the chore at hand when the worker ends: several times what an idle worker is given to stop."""

RunWorker = Callable[[Callable[[], None]], int]


class CrashedError(Exception):
    """What Celery's worker fails with."""


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set instead of ending this process."""
    event = threading.Event()
    monkeypatch.setattr(prompt_stop, "LOOK_S", 0.01)
    monkeypatch.setattr(prompt_stop, "IDLE_S", 0.1)
    monkeypatch.setattr(prompt_stop.os, "_exit", lambda status: event.set())
    return event


@pytest.fixture
def run_worker(context: WorkerContext, forced: threading.Event, monkeypatch: pytest.MonkeyPatch) -> RunWorker:
    """Run a worker whose Celery does as told while the janitor is in the midst of a chore."""

    def run(celery_part: Callable[[], None]) -> int:
        at_work = threading.Event()

        def chore() -> None:
            at_work.set()
            threading.Event().wait(CHORE_S)

        def start() -> None:
            assert at_work.wait(PATIENCE_S)
            celery_part()

        celery = SimpleNamespace(Worker=lambda **options: SimpleNamespace(start=start, exitcode=3))
        monkeypatch.setattr(entry, "configure", lambda settings: celery)
        monkeypatch.setattr(entry, "janitor_rounds", lambda _: Rounds("janitor", [Chore(chore, every_s=60)]))
        return entry.main(["--queue", "gpu"])

    monkeypatch.setattr(entry, "configure_logging", lambda settings: None)
    monkeypatch.setattr(entry, "create_context", lambda settings, queue: context)
    monkeypatch.setattr(entry, "set_context", lambda current: None)
    monkeypatch.setattr(entry, "sweep_rounds", lambda _: Rounds("sweep", [Chore(int, every_s=60)]))
    with context.sessions() as session:
        register_worker(session, context)
    return run


def test_a_worker_that_crashes_fails_also_while_a_chore_goes_on(
    run_worker: RunWorker, context: WorkerContext, forced: threading.Event
) -> None:
    def crash() -> None:
        raise CrashedError

    with pytest.raises(CrashedError):
        run_worker(crash)
    assert not forced.is_set()
    assert _listed(context) == []


def test_a_worker_told_to_stop_ends_with_celerys_status_after_the_chore(
    run_worker: RunWorker, context: WorkerContext, forced: threading.Event
) -> None:
    assert run_worker(lambda: None) == 3
    assert not forced.is_set()
    assert _listed(context) == []


def test_a_worker_for_a_device_that_does_not_exist_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise DeviceError("7", "this host has no accelerator 7", ("auto", "cpu"))

    monkeypatch.setattr(entry, "configure_logging", lambda settings: None)
    monkeypatch.setattr(entry, "create_context", refuse)
    with capture_logs() as said:
        assert entry.main(["--queue", "gpu"]) == os.EX_CONFIG
    assert said[0]["event"] == "worker_cannot_start"
    assert said[0]["reason"].startswith("HARRIER_DEVICE: device '7': this host has no accelerator 7")
    assert "there are: auto, cpu" in said[0]["reason"]


def _listed(context: WorkerContext) -> list[Worker]:
    with context.sessions() as session:
        return list(session.scalars(select(Worker)).all())
