"""`POST /detect` with a video: streamed to the disk, then a job."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anyio import to_thread
from fastapi import Request, Response, status
from fastapi.concurrency import contextmanager_in_threadpool

from app.api.dependencies import get_author, once
from app.api.faults import invalid_input
from app.api.idempotency import Once
from app.api.state import State
from app.api.uploads import UploadedFile, UploadRules, received_body
from app.detect.model_choice import class_ids
from app.detect.schemas import DetectParameters
from app.errors import Problem, UnsupportedMediaError
from app.jobs.schemas import JobRead
from app.videos.schemas import VideoParameters, video_parameters
from app.videos.service import queue_video
from detection.video.kinds import sniff_video

FIELD = "video"
KEY_HEADER = "Idempotency-Key"
A_KEY = re.compile(r"[\x21-\x7e]{1,255}")
ONCE_PARAMETER: dict[str, Any] = {
    "name": KEY_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"},
    "description": "Only with a video: the same key with the same video and parameters gives the first "
    "answer again, for a day.",
}


def is_video(content_type: str) -> bool:
    """Return whether a body says that it is a video."""
    return content_type[:6].lower() == "video/"


async def receive_video(request: Request, state: State, query: DetectParameters) -> Response:
    """Take a video that is the whole body, and answer with the job that will look at it.

    Raises:
        HarrierError: there is no such model or class, or the video cannot be taken.
    """
    wish = video_parameters(query, "query")
    model = await state.detection.models.choose(wish.model)
    class_ids(model, wish.classes, "query")
    async with contextmanager_in_threadpool(_reserved(request, state)) as first:
        folder = state.settings.scratch / "uploads"
        async with received_body(request, folder, video_rules(state)) as file:
            job = await _queued(request, state, file, wish, model.id, first)
    return Response(
        job.model_dump_json(),
        status_code=status.HTTP_202_ACCEPTED,
        headers={"Location": f"/jobs/{job.id}"},
        media_type="application/json",
    )


def video_rules(state: State) -> UploadRules:
    return UploadRules(
        field=FIELD,
        max_bytes=state.settings.max_video_bytes,
        min_free_bytes=state.settings.min_free_bytes,
        check_room=state.check_room,
        check_head=check_video_head,
    )


def check_video_head(head: bytes) -> None:
    if sniff_video(head) is None:
        raise UnsupportedMediaError("the file is no MP4, MOV, MKV, WebM or AVI by its first bytes")


async def _queued(
    request: Request, state: State, file: UploadedFile, wish: VideoParameters, model_id: str, first: Once
) -> JobRead:
    first.same_as({"video": file.sha256, **wish.model_dump(mode="json")})

    def add() -> JobRead:
        with state.sessions() as session:
            return queue_video(
                session,
                state.storage,
                state.settings,
                state.bell,
                file,
                wish,
                model_id,
                author=get_author(request),
                once=first,
            )

    return await to_thread.run_sync(add)


@contextmanager
def _reserved(request: Request, state: State) -> Iterator[Once]:
    """Yield what makes a repeated request one; asked for here, for with pictures it would only cost time."""
    key = request.headers.get(KEY_HEADER)
    if key is not None and not A_KEY.fullmatch(key):
        fault = Problem(
            pointer=f"/{KEY_HEADER.lower()}", problem="1 to 255 visible ASCII characters", place="header"
        )
        raise invalid_input([fault])
    with state.sessions() as session:
        yield from once(request, state, session, key)
