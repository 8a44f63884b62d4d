"""Events over HTTP as Server-Sent Events: replay from the last number seen, heartbeats, an end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Header, Query, Request, Response
from sqlalchemy import func, select
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from app.api.dependencies import Id, StateDep, answers, create_router, needs
from app.api.events import Event, EventHub
from app.api.head import EVENT_STREAM, EventStream
from app.api.shapes import EXAMPLE_ID
from app.api.state import State
from app.database.session import Sessions
from app.database.tables import Job, JobEvent
from app.errors import DrainingError, NotFoundError, OverloadedError, TooManyStreamsError
from app.jobs.states import ENDED
from app.keys.service import Caller, Scope

router = create_router("events")

LARGEST_ID = 2**63 - 1
RETRY = b"retry: 2000\n\n"
HEARTBEAT = b": heartbeat\n\n"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
EVENT = {
    "type": "object",
    "description": "One event; `data` is a JSON object with `subject`, `at` and what happened.",
    "properties": {
        "id": {"type": "string"},
        "event": {"enum": ["status", "metric", "log"]},
        "data": {"type": "string"},
        "retry": {"type": "integer"},
    },
}
EVENT_EXAMPLE = {
    "id": "4711",
    "event": "metric",
    "data": json.dumps(
        {
            "subject": f"jobs/{EXAMPLE_ID}",
            "at": "2026-11-20T12:01:30Z",
            "step": 84,
            "epoch": 3,
            "loss": 4.81,
            "lr": 0.0048,
        }
    ),
}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`id`, `event` and `data` (JSON) per event; comments as heartbeats.",
        "content": {EVENT_STREAM: {"schema": EVENT, "example": EVENT_EXAMPLE}},
    }
}

LastEventHeader = Annotated[
    int | None,
    Header(alias="Last-Event-ID", ge=0, le=LARGEST_ID, description="The last event seen; sent by browsers."),
]
LastEventQuery = Annotated[
    int | None, Query(ge=0, le=LARGEST_ID, description="The same for clients that cannot set a header.")
]


@router.get(
    "/jobs/{job_id}/events",
    dependencies=[needs(Scope.READ)],
    response_class=EventStream,
    responses={
        **STREAM,
        204: {"description": "The job has ended and everything was seen: do not come back."},
        **answers(NotFoundError, TooManyStreamsError, OverloadedError, DrainingError),
    },
)
async def stream_job(
    job_id: Id,
    request: Request,
    state: StateDep,
    last_event_id: LastEventQuery = None,
    header_id: LastEventHeader = None,
) -> Response:
    """Follow one job: `status`, `metric` and `log` events, from its beginning or after the last one seen.

    A `metric` event holds the values of the newest step, or of one whose weights were evaluated; it comes
    about once a second, however fast the steps are. `/jobs/{job_id}/metrics` has every step. A step below an
    earlier one means that the training went back to its last checkpoint. The stream ends when the job has
    ended.
    """
    after = _after(last_event_id, header_id) or 0
    if await to_thread.run_sync(_is_over, state.reading, job_id, after, True):
        return Response(status_code=204)
    return _stream(state, request, _job_events(state.events, state.reading, job_id, after))


@router.get(
    "/events",
    dependencies=[needs(Scope.READ)],
    response_class=EventStream,
    responses={**STREAM, **answers(TooManyStreamsError, OverloadedError, DrainingError)},
)
async def stream_all(
    request: Request,
    state: StateDep,
    last_event_id: LastEventQuery = None,
    header_id: LastEventHeader = None,
) -> Response:
    """Follow every change of jobs, datasets and models, from now on or after the last event seen."""
    return _stream(state, request, _all_events(state.events, _after(last_event_id, header_id)))


class SeatedStream(EventStream):
    """Gives its seat back when it ends, whoever ends it."""

    def __init__(self, pieces: AsyncIterator[bytes], leave: Callable[[], None]) -> None:
        super().__init__(pieces, headers=HEADERS)
        self._leave = leave

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


def _stream(state: State, request: Request, pieces: AsyncIterator[bytes]) -> Response:
    if state.events.is_closing:
        raise DrainingError("the server is stopping", retry_after_s=5)
    caller: Caller = request.state.caller
    host = request.client.host if request.client is not None else ""
    return SeatedStream(pieces, state.seats.take(caller.id or host))


def _after(query: int | None, header: int | None) -> int | None:
    """The header wins: a browser that reconnects keeps the address and sends a newer number."""
    return header if header is not None else query


async def _all_events(hub: EventHub, after: int | None) -> AsyncIterator[bytes]:
    yield RETRY
    async for event in hub.follow(lambda event: event.kind == "status", after=after):
        yield _encoded(event) if event is not None else HEARTBEAT


async def _job_events(hub: EventHub, reading: Sessions, job_id: str, after: int) -> AsyncIterator[bytes]:
    subject, may_be_over = f"jobs/{job_id}", False
    yield RETRY
    async for event in hub.follow(lambda event: event.subject == subject, after=after, job_id=job_id):
        if event is None:
            yield HEARTBEAT
            continue
        yield _encoded(event)
        if event.kind == "status":
            may_be_over = event.data.get("status") in (*ENDED, "deleted")
        if may_be_over and await to_thread.run_sync(_is_over, reading, job_id, event.id, False):
            return


def _is_over(reading: Sessions, job_id: str, seen: int, must_exist: bool) -> bool:
    """Return whether a job has ended and nothing about it is newer than `seen`."""
    with reading() as session:
        status = session.scalar(select(Job.status).where(Job.id == job_id))
        if status is None:
            if must_exist:
                raise NotFoundError(f"there is no job {job_id}")
            return True
        newest = session.scalar(select(func.max(JobEvent.id)).where(JobEvent.job_id == job_id)) or 0
    return status in ENDED and newest <= seen


def _encoded(event: Event) -> bytes:
    data = json.dumps({"subject": event.subject, "at": event.at, **event.data})
    return f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n".encode()
