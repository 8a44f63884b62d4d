"""Work ends when the connection says that its client has left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from fastapi import Request

from app.api.presence import KEY, Presence
from app.detect.leaving import ClientGoneError, while_connected
from app.errors import OverloadedError


class Client:
    """Of one request."""

    def __init__(self) -> None:
        self.num_listened = 0
        self._presence = Presence(self._listen)
        self.request = Request({"type": "http", KEY: self._presence})

    def leave(self) -> None:
        self._presence.leave()

    def _listen(self) -> None:
        self.num_listened += 1


Story = Callable[[Client], Awaitable[None]]


def told(story: Story) -> None:
    async def tell() -> None:
        async with asyncio.timeout(10):
            await story(Client())
            await asyncio.sleep(0)  # what was cancelled ends with the next turn of the loop
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(tell())


def test_work_ends_when_its_client_leaves() -> None:
    async def story(client: Client) -> None:
        ended: list[str] = []

        async def work() -> None:
            asyncio.get_running_loop().call_soon(client.leave)
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("the work")

        with pytest.raises(ClientGoneError):
            await while_connected(client.request, work())
        assert ended == ["the work"]
        here = asyncio.current_task()
        assert here is not None
        assert here.cancelling() == 0, "what the client's leaving began ended with the work"

    told(story)


def test_work_for_a_client_that_has_left_is_not_begun() -> None:
    async def story(client: Client) -> None:
        async def work() -> None:
            raise AssertionError("nobody waits for it")

        client.leave()
        with pytest.raises(ClientGoneError):
            await while_connected(client.request, work())
        assert client.num_listened == 0

    told(story)


def test_work_that_is_done_is_answered_and_who_leaves_afterwards_ends_nothing() -> None:
    async def story(client: Client) -> None:
        async def work() -> int:
            return 7

        async def fail() -> int:
            raise OverloadedError("full")

        with pytest.raises(OverloadedError):
            await while_connected(client.request, fail())
        assert await while_connected(client.request, work()) == 7
        client.leave()
        await asyncio.sleep(0)

    told(story)


def test_a_request_that_is_ended_from_outside_is_no_client_that_left() -> None:
    async def story(client: Client) -> None:
        request = asyncio.create_task(while_connected(client.request, asyncio.sleep(1000)))
        await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    told(story)


def test_the_connection_is_read_while_somebody_works() -> None:
    async def story(client: Client) -> None:
        async def work() -> int:
            return client.num_listened

        assert await while_connected(client.request, work()) == 1, "one that is not read tells of no end"

    told(story)


def test_work_is_done_for_a_client_that_no_connection_tells_of() -> None:
    async def work() -> int:
        return 7

    assert asyncio.run(while_connected(Request({"type": "http"}), work())) == 7
