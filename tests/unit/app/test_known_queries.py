"""A query that was read once is known by its words, within bounds."""

from __future__ import annotations

from app.detect.known_queries import LONGEST_QUERY, MOST_QUERIES, KnownQueries
from app.detect.schemas import DetectParameters

SURE = DetectParameters(score_threshold=0.9)


def test_a_query_is_known_once_it_was_read() -> None:
    known = KnownQueries()
    assert known.find(b"score_threshold=0.9") is None
    known.remember(b"score_threshold=0.9", SURE)
    assert known.find(b"score_threshold=0.9") is SURE


def test_nothing_asked_is_known_from_the_beginning() -> None:
    known = KnownQueries()
    known.remember(b"", SURE)
    assert known.find(b"") == DetectParameters()


def test_queries_are_remembered_within_bounds() -> None:
    known = KnownQueries()
    known.remember(b"x" * (LONGEST_QUERY + 1), SURE)
    assert known.find(b"x" * (LONGEST_QUERY + 1)) is None
    for number in range(MOST_QUERIES + 1):
        known.remember(b"model=%d" % number, SURE)
    assert known.find(b"model=0") is None
    assert known.find(b"model=1") is SURE
