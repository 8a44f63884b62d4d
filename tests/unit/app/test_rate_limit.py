"""The rate limit: a burst of a minute's requests, then one as often as the bucket fills."""

from __future__ import annotations

import pytest

from app.api import rate_limit
from app.api.rate_limit import RateLimit


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def allowed(limit: RateLimit, caller: str, tries: int) -> int:
    return sum(limit.refusal(caller) is None for _ in range(tries))


def test_a_minutes_requests_may_come_at_once(clock: Clock) -> None:
    limit = RateLimit(30, now=clock)
    assert allowed(limit, "a", 50) == 30
    assert allowed(limit, "b", 50) == 30, "callers do not share"


def test_then_one_as_often_as_there_is_room_again(clock: Clock) -> None:
    limit = RateLimit(30, now=clock)
    allowed(limit, "a", 50)
    clock.now += 1.9
    assert allowed(limit, "a", 5) == 0
    clock.now += 0.1
    assert allowed(limit, "a", 5) == 1
    clock.now += 10
    assert allowed(limit, "a", 50) == 5
    clock.now += 3600
    assert allowed(limit, "a", 50) == 30, "no more than a full bucket is saved"


def test_in_the_long_run_it_is_the_rate(clock: Clock) -> None:
    limit = RateLimit(100, now=clock)
    total = 0
    for _ in range(10_000):
        total += allowed(limit, "a", 1)
        clock.now += 0.1
    assert total == pytest.approx(100 + 1000 / 60 * 100, abs=2)


@pytest.mark.parametrize(("per_minute", "seconds"), [(60, 1), (1, 60), (7, 9), (6000, 1)])
def test_who_waits_as_long_as_told_is_let_in(clock: Clock, per_minute: int, seconds: int) -> None:
    limit = RateLimit(per_minute, now=clock)
    assert allowed(limit, "a", per_minute + 1) == per_minute
    refused = limit.refusal("a")
    assert refused is not None
    assert refused.headers["Retry-After"] == str(seconds)
    clock.now += seconds
    assert limit.refusal("a") is None


def test_a_refused_request_costs_nothing(clock: Clock) -> None:
    limit = RateLimit(60, now=clock)
    allowed(limit, "a", 1000)
    clock.now += 1
    assert allowed(limit, "a", 10) == 1


def test_it_forgets_who_was_not_seen_for_long(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MOST_CALLERS", 2)
    limit = RateLimit(1, now=clock)
    assert [allowed(limit, caller, 2) for caller in "abc"] == [1, 1, 1]
    assert allowed(limit, "c", 1) == 0
    assert allowed(limit, "a", 1) == 1, "forgotten: two others came since"
