"""The parts of `/detect` that need no engine: room for bytes, clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from fastapi import Request
from starlette.types import Message

from app.detect.bodies import Room
from app.detect.service import ClientGoneError, _all_or_first_error, while_connected
from app.errors import OverloadedError


def test_room_is_given_back_also_after_a_refusal() -> None:
    room = Room(max_requests=2, max_bytes=10)
    with room.enter() as take, room.enter() as take_more:
        take(4)
        take_more(5)
        with pytest.raises(OverloadedError):
            take(2)
        take(1)
        assert room.held_bytes == 10
        with pytest.raises(OverloadedError), room.enter():
            pass
    assert room.held_bytes == 0
    with room.enter() as take:
        take(10)
    assert room.held_bytes == 0


Story = Callable[[asyncio.Queue[Message], Request], Awaitable[None]]


def told(story: Story) -> None:
    async def tell() -> None:
        messages: asyncio.Queue[Message] = asyncio.Queue()
        request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, messages.get)
        async with asyncio.timeout(10):
            await story(messages, request)

    asyncio.run(tell())


def test_work_ends_when_its_client_leaves() -> None:
    async def story(messages: asyncio.Queue[Message], request: Request) -> None:
        ended = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        messages.put_nowait({"type": "http.disconnect"})
        with pytest.raises(ClientGoneError):
            await while_connected(request, work())
        assert ended.is_set()

    told(story)


def test_work_that_is_done_is_answered() -> None:
    async def story(messages: asyncio.Queue[Message], request: Request) -> None:
        async def work() -> int:
            return 7

        async def fail() -> int:
            raise OverloadedError("full")

        assert await while_connected(request, work()) == 7
        with pytest.raises(OverloadedError):
            await while_connected(request, fail())
        await asyncio.sleep(0)  # what was cancelled ends with the next turn of the loop
        assert len(asyncio.all_tasks()) == 1

    told(story)


def test_the_first_error_of_many_pictures_is_raised_as_it_is() -> None:
    async def refuse(after_s: float, detail: str) -> None:
        await asyncio.sleep(after_s)
        raise OverloadedError(detail)

    with pytest.raises(OverloadedError, match="sooner"):
        asyncio.run(_all_or_first_error([refuse(5, "later"), refuse(0, "sooner")]))
