"""`POST /detect` with a video: streamed to the disk, as the whole body or as a file of a form, then a job."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from anyio import to_thread
from fastapi import Request, Response, status
from fastapi.concurrency import contextmanager_in_threadpool

from app.api.dependencies import get_author, once
from app.api.faults import field_fault, invalid_input
from app.api.idempotency import Once
from app.api.multipart import FileSink, PartHead
from app.api.state import State
from app.api.uploads import DiskSink, UploadedFile, UploadRules, make_way, received_body
from app.database.tables import new_id
from app.detect.bodies import DetectRequest
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


def is_form(content_type: str) -> bool:
    """Return whether a body is a form, which may hold a video."""
    return content_type[:19].lower() == "multipart/form-data"


async def receive_video(request: Request, state: State, query: DetectParameters) -> Response:
    """Take a video that is the whole body, and answer with the job that will look at it.

    Raises:
        HarrierError: there is no such model or class, or the video cannot be taken.
    """
    wish = video_parameters(query, "query")
    model_id = await _choose(state, DetectRequest([], query, "query"))
    async with (
        contextmanager_in_threadpool(_reserved(request, state)) as first,
        received_body(request, _folder(state), _rules(state)) as file,
    ):
        job = await _queued(request, state, file, wish, model_id, first)
    return _accepted(job)


class VideoPart:
    """The file `video` of a form, if there is one; an async context manager that leaves nothing behind."""

    def __init__(self, request: Request, state: State) -> None:
        self._request, self._state = request, state
        self._sink = DiskSink(_folder(state) / new_id(), _rules(state))

    async def __aenter__(self) -> VideoPart:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.discard()

    @property
    def is_open(self) -> bool:
        return self._sink.is_open

    async def open(self, head: PartHead) -> FileSink:
        """Return where the file goes.

        Raises:
            InvalidInputError: it is the second one.
            HarrierError: there is no room for it.
        """
        if self.is_open:
            raise field_fault(FIELD, "one video at a time")
        await make_way(self._request, _folder(self._state), _rules(self._state))
        self._sink.open(head.file_name or "")
        return self._sink

    async def answer(self, sent: DetectRequest) -> Response:
        """Return the job that will look at the video, as `receive_video` does.

        Args:
            sent: the form, with the parameters of the query.
        """
        if sent.images:
            raise field_fault(FIELD, "a video goes alone, without pictures")
        wish = video_parameters(sent.parameters, "body")
        model_id = await _choose(self._state, sent)
        async with contextmanager_in_threadpool(_reserved(self._request, self._state)) as first:
            job = await _queued(self._request, self._state, self._sink.result(), wish, model_id, first)
        return _accepted(job)


def check_video_head(head: bytes) -> None:
    if sniff_video(head) is None:
        raise UnsupportedMediaError("the file is no MP4, MOV, MKV, WebM or AVI by its first bytes")


def _folder(state: State) -> Path:
    return state.settings.scratch / "uploads"


def _rules(state: State) -> UploadRules:
    return UploadRules(
        field=FIELD,
        max_bytes=state.settings.max_video_bytes,
        min_free_bytes=state.settings.min_free_bytes,
        check_room=state.check_room,
        check_head=check_video_head,
    )


async def _choose(state: State, sent: DetectRequest) -> str:
    """Return the id of the model of this moment, which must know the classes that are asked for."""
    model = await state.detection.models.choose(sent.parameters.model)
    class_ids(model, sent.parameters.classes, sent.classes_in)
    return model.id


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


def _accepted(job: JobRead) -> Response:
    return Response(
        job.model_dump_json(),
        status_code=status.HTTP_202_ACCEPTED,
        headers={"Location": f"/jobs/{job.id}"},
        media_type="application/json",
    )


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
