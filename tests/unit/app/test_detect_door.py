"""The short way to `/detect`: what it takes, and that it gives what the long way gives."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.routing import Match

from app.detect.door import DetectDoor
from app.detect.known_queries import LONGEST_QUERY, MOST_QUERIES, KnownQueries
from app.detect.schemas import DetectParameters

SURE = DetectParameters(score_threshold=0.9)


async def nothing(*_: Any) -> Any:
    raise AssertionError("nobody asked")


def matched(known: KnownQueries, **changes: Any) -> Match:
    scope = {"type": "http", "method": "POST", "path": "/detect", "query_string": b"", **changes}
    return DetectDoor(known, nothing).matches(scope)[0]


def test_a_request_that_asks_for_nothing_takes_the_short_way() -> None:
    assert matched(KnownQueries()) is Match.FULL
    assert matched(KnownQueries(), root_path="/vision", path="/vision/detect") is Match.FULL


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "GET"},
        {"path": "/detect/"},
        {"path": "/jobs"},
        {"query_string": b"model=x"},
        {"type": "websocket"},
    ],
)
def test_everything_else_goes_the_long_way(changes: dict[str, Any]) -> None:
    assert matched(KnownQueries(), **changes) is Match.NONE


def test_a_query_is_known_once_it_was_read() -> None:
    known = KnownQueries()
    known.remember(b"score_threshold=0.9", SURE)
    assert known.find(b"score_threshold=0.9") is SURE
    assert matched(known, query_string=b"score_threshold=0.9") is Match.FULL


def test_queries_are_remembered_within_bounds() -> None:
    known = KnownQueries()
    known.remember(b"x" * (LONGEST_QUERY + 1), SURE)
    assert known.find(b"x" * (LONGEST_QUERY + 1)) is None
    for number in range(MOST_QUERIES + 1):
        known.remember(b"model=%d" % number, SURE)
    assert known.find(b"model=0") is None
    assert known.find(b"model=1") is SURE
    known.remember(b"", SURE)
    assert known.find(b"") == DetectParameters()
