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
    """Return what `work` returns, or end it as soon as the client leaves.

    Our own server tells of that (`app/server.py`). Where another one runs the application, the work is done
    to its end, which is right as well and only costs more.

    Raises:
        ClientGoneError: it left before the answer.
    """
    presence = presence_of(request.scope)
    if presence is None:
        return await work
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


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "every request has a task of its own"
    return task
