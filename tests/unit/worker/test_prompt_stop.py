"""A worker that has nothing left to do ends, whatever Celery waits for."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select

from app.database.tables import Worker
from worker import prompt_stop
from worker.context import WorkerContext
from worker.prompt_stop import PromptStop
from worker.registration import register_worker

PATIENCE_S = 20.0


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set instead of ending this process."""
    event = threading.Event()
    monkeypatch.setattr(prompt_stop, "LOOK_S", 0.01)
    monkeypatch.setattr(prompt_stop, "IDLE_S", 0.1)
    monkeypatch.setattr(prompt_stop.os, "_exit", lambda status: event.set())
    return event


def test_an_idle_worker_ends_and_is_no_longer_listed(context: WorkerContext, ended: threading.Event) -> None:
    with context.sessions() as session:
        register_worker(session, context)
    thread = PromptStop(context)
    thread.start()
    context.draining.set()
    assert ended.wait(PATIENCE_S)
    thread.join(PATIENCE_S)
    with context.sessions() as session:
        assert session.scalars(select(Worker)).all() == []


def test_a_worker_with_a_job_is_waited_for(context: WorkerContext, ended: threading.Event) -> None:
    assert context.slots.take(("cpu",), "a job")
    thread = PromptStop(context)
    thread.start()
    context.draining.set()
    assert not ended.wait(0.5)
    context.slots.give_back(("cpu",), "a job")
    assert ended.wait(PATIENCE_S)
    thread.join(PATIENCE_S)


def test_a_worker_that_stops_in_good_order_is_left_alone(
    context: WorkerContext, ended: threading.Event
) -> None:
    thread = PromptStop(context)
    thread.start()
    thread.end()
    context.draining.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert not ended.is_set()
