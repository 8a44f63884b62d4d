"""A body that is too long or too slow ends; one that only pauses goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from starlette.types import Message

from app.api.error_handlers import RefusedError
from app.api.limits import SLOWEST_BYTES_PER_S, BoundedBody
from app.errors import PayloadTooLargeError, RequestTimeoutError

TIMEOUT_S = 0.4


def receive_all(pieces: Sequence[tuple[float, bytes]], *, limit: int = 10**6, ends: bool = True) -> int:
    """Receive pieces that come after pauses; return how many bytes came."""
    waiting = list(pieces)

    async def receive() -> Message:
        if not waiting:
            await asyncio.sleep(0 if ends else 60)
            return {"type": "http.request", "body": b"", "more_body": False}
        pause, body = waiting.pop(0)
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": body, "more_body": True}

    async def run() -> int:
        bounded, total = BoundedBody(receive, limit, TIMEOUT_S), 0
        while True:
            message = await bounded.receive()
            total += len(message["body"])
            if not message["more_body"]:
                return total

    return asyncio.run(run())


def test_a_body_within_its_bounds_comes_whole() -> None:
    assert receive_all([(0, b"x" * 1000)] * 10, limit=10_000) == 10_000


def test_a_body_over_the_limit_ends_at_the_limit() -> None:
    with pytest.raises(RefusedError) as caught:
        receive_all([(0, b"x" * 1000)] * 10, limit=9_999)
    assert isinstance(caught.value.error, PayloadTooLargeError)


@pytest.mark.parametrize(
    "pieces",
    [[], [(0, b"x")], [(0.02, b"x")] * 1000],
    ids=["silent from the start", "silent in the middle", "a byte at a time"],
)
def test_a_body_that_comes_too_slowly_is_given_up(pieces: list[tuple[float, bytes]]) -> None:
    with pytest.raises(RefusedError) as caught:
        receive_all(pieces, ends=False)
    assert isinstance(caught.value.error, RequestTimeoutError)
    assert caught.value.close


def test_who_sends_enough_may_pause() -> None:
    enough = b"x" * (int(SLOWEST_BYTES_PER_S * TIMEOUT_S) + 1)
    assert receive_all([(TIMEOUT_S / 2, enough)] * 6) == 6 * len(enough)


def test_a_slow_reader_is_not_the_clients_fault() -> None:
    async def run() -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"x", "more_body": True}

        bounded = BoundedBody(receive, 100, 0.1)
        for _ in range(4):
            await bounded.receive()
            await asyncio.sleep(0.05)

    asyncio.run(run())


def test_after_the_body_one_may_wait_for_ever() -> None:
    async def run() -> Message:
        messages = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await asyncio.sleep(0.2)
            return {"type": "http.disconnect"}

        bounded = BoundedBody(receive, 100, 0.05)
        await bounded.receive()
        return await bounded.receive()

    assert asyncio.run(run())["type"] == "http.disconnect"
