"""What is observed is counted together, and is never missing where Prometheus asks."""

from __future__ import annotations

import threading

from prometheus_client import CollectorRegistry, Counter

from app.api.noted import MOST, Noted


def noted() -> tuple[CollectorRegistry, Noted[str]]:
    registry = CollectorRegistry()
    kept: Noted[str] = Noted(lambda kind: seen.labels(kind).inc(), registry)
    seen = Counter("seen", "Things.", ["kind"], registry=registry)
    return registry, kept


def test_who_asks_finds_what_was_noted_before() -> None:
    registry, kept = noted()
    kept.note("cat")
    kept.note("dog")
    kept.note("cat")
    assert registry.get_sample_value("seen_total", {"kind": "cat"}) == 2
    assert registry.get_sample_value("seen_total", {"kind": "cat"}) == 2, "each counts once"


def test_no_more_wait_than_are_counted_in_a_moment() -> None:
    counted: list[int] = []
    kept = Noted(counted.append, CollectorRegistry())
    for number in range(MOST - 1):
        kept.note(number)
    assert counted == []
    kept.note(MOST - 1)
    assert counted == list(range(MOST))


def test_nothing_is_lost_or_counted_twice_between_threads() -> None:
    registry, kept = noted()
    asking = [threading.Thread(target=lambda: [kept.count_all() for _ in range(200)]) for _ in range(2)]
    for thread in asking:
        thread.start()
    for _ in range(5000):
        kept.note("cat")
    for thread in asking:
        thread.join()
    assert registry.get_sample_value("seen_total", {"kind": "cat"}) == 5000
