"""Work for a client that may leave before it has its answer: then nothing more is done for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from app.api.presence import presence_of

Value = TypeVar("Value")


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def while_connected(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """Return what `work` returns, or end it as soon as the client leaves; its body must have been read.

    Raises:
        ClientGoneError: it left before the answer.
    """
    presence = presence_of(request.scope)
    if presence is None:
        return await _while_nobody_says_otherwise(request, work)
    if presence.has_left:
        work.close()
        raise ClientGoneError
    here = _current_task()
    presence.watch(here.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if presence.has_left and here.uncancel() == 0:
            raise ClientGoneError from None
        raise
    finally:
        presence.end_watch()


async def _while_nobody_says_otherwise(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """As `while_connected`, where the connection tells nothing: a task asks it."""
    here = _current_task()
    leaving = asyncio.create_task(_client_leaves(request))
    is_working = True

    def end_the_work(left: asyncio.Task[None]) -> None:
        if is_working and not left.cancelled():
            here.cancel()

    leaving.add_done_callback(end_the_work)
    try:
        return await work
    except asyncio.CancelledError:
        if leaving.done() and not leaving.cancelled() and here.uncancel() == 0:
            raise ClientGoneError from None
        raise
    finally:
        is_working = False
        leaving.cancel()  # it has nothing to end, and the answer need not wait for it


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "every request has a task of its own"
    return task


async def _client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
