"""The bell with a real broker that is there, gone, back, and silent."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import select

from app import task_queue
from app.database.tables import OutboxRow
from app.jobs import protocol
from app.jobs.states import JobKind, Queue
from app.settings import Settings
from app.task_queue import RUN_JOB, CeleryBell, announce
from tests.services import Home


@pytest.fixture(autouse=True)
def no_quiet_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_queue, "QUIET_S", 0.0)


@pytest.fixture
def broker(home: Home) -> Iterator[redis.Redis]:
    with redis.Redis(unix_socket_path=str(home.settings.broker_socket)) as broker:
        yield broker


def test_a_ring_is_a_message_with_the_job_id_and_nothing_else(home: Home, broker: redis.Redis) -> None:
    assert home.bell.ring("the-job", Queue.GPU)
    assert broker.llen("cpu") == 0
    message = json.loads(broker.rpop("gpu") or b"{}")
    assert message["headers"]["task"] == RUN_JOB
    assert "the-job" in message["headers"]["argsrepr"]


def test_a_broker_that_died_is_rung_again_when_it_is_back(home: Home) -> None:
    assert home.bell.ring("first", Queue.CPU)
    home.kill_broker()
    assert not home.bell.ring("second", Queue.CPU)
    home.start_broker()
    assert home.bell.ring("third", Queue.CPU)


def test_a_broker_that_is_silent_costs_one_ring_a_second(home: Home) -> None:
    broker = home.broker_process
    assert home.bell.ring("first", Queue.CPU)
    broker.send_signal(signal.SIGSTOP)
    assert not home.bell.ring("second", Queue.CPU)
    broker.send_signal(signal.SIGCONT)
    assert home.bell.ring("third", Queue.CPU)


def test_after_a_failed_ring_nobody_waits_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:  # accepts nobody
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        bell = CeleryBell(Settings(redis_url=f"redis://127.0.0.1:{listener.getsockname()[1]}/0"))
        monkeypatch.setattr(task_queue, "QUIET_S", 60.0)
        assert not bell.ring("first", Queue.CPU)
        listener.close()
        assert not bell.ring("second", Queue.CPU), "not even asked"
        bell.close()


def test_only_a_ring_that_was_heard_is_noted(home: Home) -> None:
    with home.sessions() as session:
        job = protocol.add_job(session, JobKind.TRAIN)
        session.commit()
        assert announce(session, home.bell, job.id, Queue.GPU)
        assert session.scalar(select(OutboxRow.rings)) == 1
        home.kill_broker()
        assert not announce(session, home.bell, job.id, Queue.GPU)
        session.expire_all()
        assert session.scalar(select(OutboxRow.rings)) == 1
