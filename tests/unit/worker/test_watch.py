"""What a keeper watches: when a lease is renewed, and when silence is a hang."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from app.database.session import Sessions
from app.database.tables import Job
from app.jobs import protocol
from app.jobs.protocol import Claim, LostLeaseError
from worker import watch
from worker.watch import Heart, Silence


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(watch.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def lease_until(sessions: Sessions) -> float:
    with sessions() as session:
        return session.scalars(select(Job.lease_until)).one() or 0.0


def test_a_heart_renews_at_its_beat_and_reads_orders_between(
    sessions: Sessions, claim: Claim, clock: Clock
) -> None:
    heart = Heart(sessions, claim, heartbeat_s=10, lease_s=45)
    before = lease_until(sessions)
    clock.now += 2
    assert not heart.beat().cancel
    assert lease_until(sessions) == before
    with sessions() as session:
        protocol.request_cancel(session, claim.job_id)
    clock.now += 0.5
    assert not heart.beat().cancel, "orders are read once a second"
    clock.now += 1
    assert heart.beat().cancel
    clock.now += 10
    time.sleep(0.01)
    heart.beat()
    assert lease_until(sessions) > before


def test_a_heart_notices_that_somebody_else_owns_the_job(
    sessions: Sessions, claim: Claim, clock: Clock
) -> None:
    heart = Heart(sessions, claim, heartbeat_s=10, lease_s=45)
    with sessions() as session:
        session.execute(update(Job).values(fence=Job.fence + 1))
        session.commit()
    clock.now += 11
    with pytest.raises(LostLeaseError):
        heart.beat()


def test_a_heart_without_a_database_stops_when_the_lease_may_have_run_out(claim: Claim, clock: Clock) -> None:
    def no_database() -> None:
        raise OperationalError("select 1", {}, Exception("connection refused"))

    heart = Heart(no_database, claim, heartbeat_s=10, lease_s=45)  # type: ignore[arg-type]
    clock.now += 44
    heart.beat()
    assert not heart.stopped
    clock.now += 1
    heart.beat()
    assert heart.stopped


def test_silence_is_a_hang_after_the_set_time_or_ten_usual_intervals(clock: Clock) -> None:
    silence = Silence(hang_s=300)
    clock.now += 299
    assert not silence.is_hang
    silence.note(0)
    clock.now += 2
    assert silence.is_hang
    for _ in range(5):
        silence.note(1)
        clock.now += 60
    assert not silence.is_hang
    clock.now += 500
    assert not silence.is_hang, "a step of a minute may be followed by ten minutes of evaluation"
    clock.now += 50
    assert silence.is_hang


def test_many_signs_in_one_look_are_many_short_intervals(clock: Clock) -> None:
    silence = Silence(hang_s=1)
    for _ in range(10):
        clock.now += 1
        silence.note(100)
    clock.now += 1.5
    assert silence.is_hang
