"""The shortest way to `/detect` gives what the way through the house gives, whatever is asked or fails."""

from __future__ import annotations

from collections.abc import Mapping
from random import random
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.guard import Guard
from app.api.short_bodies import WHOLE
from app.detect.routes import known_queries
from app.detect.schemas import DetectParameters
from app.errors import HarrierError, OverloadedError
from app.keys.service import Scope as KeyScope
from app.keys.service import create_key
from tests.fakes import JPEG
from tests.integration.api.conftest import HERE, Api, MakeApi

RAW = {"Content-Type": "image/jpeg"}
OF_EACH_ANSWER = {"x-request-id", "server-timing"}
"""Headers that differ from one answer to the next."""


class WholeBodies:
    """Hands requests over as a connection does that has waited for their bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            body = await receive()
            assert not body.get("more_body", False)
            scope[WHOLE] = body["body"]
            unread = [body]

            async def receive_again() -> Message:
                return unread.pop() if unread else await receive()

            await self._app(scope, receive_again, send)
        else:
            await self._app(scope, receive, send)


@pytest.fixture
def in_the_house(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of requests that went through the house."""
    passed: list[str] = []
    through = Guard.__call__

    async def note(self: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            passed.append(scope["path"])
        await through(self, scope, receive, send)

    monkeypatch.setattr(Guard, "__call__", note)
    return passed


def ask(api: Api, *, whole: bool, path: str = "/detect", **options: Any) -> Any:
    client = TestClient(WholeBodies(api.app), HERE, raise_server_exceptions=False) if whole else api.client
    return client.post(path, **{"content": JPEG, "headers": RAW, **options})


def shown(answer: Any) -> tuple[int, Mapping[str, str], Any]:
    headers = {name: value for name, value in answer.headers.items() if name not in OF_EACH_ANSWER}
    assert answer.headers["x-request-id"]
    body = answer.json() if "json" in headers["content-type"] else answer.content
    if isinstance(body, dict):
        body.pop("request_id", None)
    return answer.status_code, headers, body


def key(api: Api, *scopes: KeyScope) -> dict[str, str]:
    with api.session() as session:
        return {**RAW, "X-API-Key": create_key(session, "tester", scopes)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"headers": {**RAW, "Accept": "image/jpeg"}},
        {"headers": {**RAW, "Accept": "text/plain"}},
        {"headers": {**RAW, "Accept": "video/mp4"}},
        {"headers": {**RAW, "X-Request-ID": "mine"}},
        {"headers": {"Content-Type": "text/html"}},
        {"headers": {"Content-Type": "application/json"}, "content": b'{"images": [{"data": "AAAA"}]}'},
        {"headers": {"Content-Type": "application/json"}, "content": b'{"images": '},
        {"headers": {}, "files": {"image": ("a.jpg", JPEG)}, "content": None},
        {"headers": {}, "files": {"other": ("a.jpg", JPEG)}, "content": None},
        {"params": {"model": "nobody"}},
        {"params": {"classes": "unicorn"}},
        {"params": {"score_threshold": "0.4"}},
    ],
)
def test_both_ways_give_the_same(api: Api, in_the_house: list[str], options: dict[str, Any]) -> None:
    api.model(alias="production")
    long_way = ask(api, whole=False, **options)
    del in_the_house[:]
    assert shown(ask(api, whole=True, **options)) == shown(long_way)
    assert in_the_house == []


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {**RAW, "Origin": HERE}},
        {"headers": {**RAW, "Origin": "http://elsewhere.example"}},
        {"headers": {**RAW, "Host": "elsewhere.example"}},
        {"headers": {**RAW, "Host": ""}},
        {
            "headers": [
                (b"Content-Type", b"image/jpeg"),
                (b"Host", b"127.0.0.1"),
                (b"Host", b"elsewhere.example"),
            ]
        },
        {"headers": {**RAW, "Content-Encoding": "gzip"}},
        {"content": b"x" * 3001},
        {"params": {"score_threshold": "high"}},
        {"params": {"thresh": "0.4"}},
        {"path": "/detect/"},
    ],
)
def test_what_is_unusual_goes_through_the_house(
    make_api: MakeApi, in_the_house: list[str], options: dict[str, Any]
) -> None:
    api = make_api(max_detect_bytes=3000)
    api.model(alias="production")
    long_way = ask(api, whole=False, **options)
    del in_the_house[:]
    assert shown(ask(api, whole=True, **options)) == shown(long_way)
    assert in_the_house == [options.get("path", "/detect")]


@pytest.mark.parametrize(
    "error",
    [
        OverloadedError("too many pictures are waiting already", retry_after_s=3),
        OperationalError("select", {}, Exception("gone")),
        ZeroDivisionError("nobody foresaw this"),
    ],
)
def test_errors_have_the_same_answers(api: Api, error: HarrierError) -> None:
    api.model(alias="production")
    api.engine.error = error
    assert shown(ask(api, whole=True)) == shown(ask(api, whole=False))


def test_keys_are_asked_each_time(make_api: MakeApi) -> None:
    api = make_api(require_keys=True)
    api.model(alias="production")
    for headers in (RAW, {**RAW, "X-API-Key": "guessed"}, key(api, KeyScope.READ), key(api, KeyScope.DETECT)):
        assert shown(ask(api, whole=True, headers=headers)) == shown(ask(api, whole=False, headers=headers))


def test_those_who_come_too_often_are_counted_at_both_doors(make_api: MakeApi) -> None:
    api = make_api(max_requests_per_minute=3)
    api.model(alias="production")
    came = [ask(api, whole=whole).status_code for whole in (True, False, True, True, False)]
    assert came == [200, 200, 200, 429, 429]


def test_it_stands_behind_the_prefix_of_a_proxy(make_api: MakeApi, in_the_house: list[str]) -> None:
    api = make_api(root_path="/vision")
    api.model(alias="production")
    for path in ("/vision/detect", "/detect"):  # one proxy keeps the prefix, another takes it off
        assert ask(api, whole=True, path=path).status_code == 200
    assert in_the_house == []


def test_a_request_is_counted_as_any_other(api: Api) -> None:
    api.model(alias="production")
    for whole in (False, True):
        ask(api, whole=whole)
        ask(api, whole=whole, headers={**RAW, "X-API-Key": "guessed"})
    counted = api.get("/metrics").text
    assert 'harrier_requests_total{method="POST",route="/detect",status="200"} 2.0' in counted
    assert 'harrier_requests_total{method="POST",route="unknown",status="401"} 2.0' in counted


def test_an_unread_query_is_read_by_fastapi_once(api: Api, in_the_house: list[str]) -> None:
    api.model(alias="production")
    unread = random()  # what was read is known to all applications of a process
    for _ in range(3):
        assert ask(api, whole=True, params={"nms_iou": unread}).status_code == 200
    assert in_the_house == ["/detect"]
    assert known_queries.find(f"nms_iou={unread}".encode()) == DetectParameters(nms_iou=unread)
