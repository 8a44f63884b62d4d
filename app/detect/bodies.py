"""The three ways to send pictures: raw, multipart, JSON; never more bytes than there is room for."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from anyio import to_thread
from fastapi import Request
from pydantic import ValidationError

from app.api.faults import fault_at, field_fault, invalid_input, pointer_to, problems_of
from app.api.forms import parse_fields
from app.api.multipart import FileSink, PartHead, read_form
from app.api.short_bodies import whole_body
from app.api.strict_json import MOST_VALUES, strict_json
from app.detect.errors import PictureTooLargeError, UnsupportedPictureError
from app.detect.schemas import DetectBody, DetectParameters, EncodedImage
from app.errors import (
    BadRequestError,
    HarrierError,
    OverloadedError,
    PayloadTooLargeError,
    Place,
    Problem,
    UnsupportedMediaError,
)
from app.settings import Settings

FILE_FIELD, VIDEO_FIELD = "image", "video"
FILES = (FILE_FIELD, VIDEO_FIELD)
IMAGE_VALUES = 2
"""Of a picture in JSON: an object and what separates it from the next."""
MOST_BLANKS = 10_000
"""In the base64 of a picture that is too small for its line ends to count."""
REPEATABLE_FIELDS = frozenset({"classes"})
"""Of a form, as in the query."""
KEPT_FRACTION = 4
"""One part in so many of the room for bytes is kept for bodies that are short and there already."""
PLAINLY = DetectParameters()
"""What a body asks for that can hold nothing but a picture."""
GIVEN_TWICE = "given twice: in the query and in the body"
EMPTY_BODY = "the body is empty"
NO_FRAMES = "a picture has no frames; send a video (Content-Type: video/mp4)"
WAYS = (
    "send the picture itself (Content-Type: image/jpeg), a form with one or several `image` files "
    "(multipart/form-data), JSON (application/json), or a video (video/mp4)"
)


@dataclass(frozen=True, slots=True)
class DetectRequest:
    """The pictures of a request in the order sent, and what is asked about them."""

    images: list[bytes | HarrierError]
    """Each as it was sent, or why it could not be taken: one picture does not spoil the others."""
    parameters: DetectParameters
    classes_in: Place = "body"
    """Where the classes were named, for an answer that refuses them."""
    names: Sequence[str] = ()
    """The file names of a form, in the order of the pictures; empty where there is none."""


class Room:
    """How much one API process holds for `/detect` at a time; what does not fit is told to come back.

    Requests whose bodies are still coming have seats of their own, and leave some of the bytes to the others:
    who sends slowly, or many who do, keep out nobody whose picture is here already.
    """

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._here = self._coming = self._held = 0

    @property
    def held_bytes(self) -> int:
        return self._held

    @contextmanager
    def enter(self, *, is_here: bool) -> Iterator[Callable[[int], None]]:
        """Yield a function that takes room for so many more bytes; all of it is given back at the end.

        Args:
            is_here: the whole body has come before the request began.

        Raises:
            OverloadedError: there are too many requests already; the function raises it for bytes.
        """
        taken = 0

        def take(num_bytes: int) -> None:
            nonlocal taken
            # The only one that comes may be as long as there is room at all.
            kept = 0 if is_here or self._coming == 1 else self._max_bytes // KEPT_FRACTION
            if self._held + num_bytes > self._max_bytes - kept:
                raise OverloadedError("too many pictures are on their way already")
            taken += num_bytes
            self._held += num_bytes

        with self._seat(is_here):
            try:
                yield take
            finally:
                self._held -= taken

    @contextmanager
    def _seat(self, is_here: bool) -> Iterator[None]:
        if (self._here if is_here else self._coming) >= self._max_requests:
            raise OverloadedError("too many pictures are waiting already")
        self._here, self._coming = self._here + is_here, self._coming + (not is_here)
        try:
            yield
        finally:
            self._here, self._coming = self._here - is_here, self._coming - (not is_here)


class OtherFile(Protocol):
    """A file of a form that is no picture: it goes elsewhere, and takes no room here."""

    @property
    def is_open(self) -> bool: ...

    async def open(self, head: PartHead) -> FileSink: ...


async def read_request(
    request: Request,
    query: DetectParameters,
    settings: Settings,
    take: Callable[[int], None],
    video: OtherFile | None = None,
) -> DetectRequest:
    """Read a body of any of the three kinds. A picture that cannot be taken is noted in its place.

    Args:
        video: takes the file `video` of a form; then there need be no picture.

    Raises:
        HarrierError: of status 400, 413, 415, 422 or 503; the request as a whole is at fault.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        body = _bounded(_counted(request, take, video), settings, video)
        sent = await _read_form(body, content_type, settings, video)
    elif kind == "application/json":
        sent = await _read_json(_counted(request, take, None), settings)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        sent = DetectRequest([await _read_picture(request, take, settings)], PLAINLY)
    else:
        raise UnsupportedMediaError(WAYS)
    faults = _given_twice(query, sent.parameters)
    if video is None or not video.is_open:
        _check_number(len(sent.images), settings)
        faults += _unfit_for_pictures(len(sent.images), query, sent.parameters)
    if faults:
        raise invalid_input(faults)
    parameters = _merged(query, sent.parameters)
    classes_in: Place = "query" if "classes" in query.model_fields_set else "body"
    return DetectRequest(sent.images, parameters, classes_in, sent.names)


async def _counted(
    request: Request, take: Callable[[int], None], video: OtherFile | None
) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        if video is None or not video.is_open:
            take(len(piece))
        yield piece


async def _bounded(
    body: AsyncIterator[bytes], settings: Settings, video: OtherFile | None
) -> AsyncIterator[bytes]:
    """Yield a form, which may only be as long as a video when it holds one."""
    num_bytes = 0
    async for piece in body:
        num_bytes += len(piece)
        if num_bytes > settings.max_detect_bytes and (video is None or not video.is_open):
            raise PayloadTooLargeError(
                f"the pictures may have at most {settings.max_detect_bytes} bytes together"
            )
        yield piece


async def _read_picture(
    request: Request, take: Callable[[int], None], settings: Settings
) -> bytes | HarrierError:
    """Read a body that is the picture itself; its pieces are put together once, and one piece not at all."""
    whole = whole_body(request.scope)
    if whole is not None:
        take(len(whole))
        return _fitting(whole, settings.max_image_bytes, EMPTY_BODY)
    pieces: list[bytes] = []
    num_bytes = 0
    async for piece in request.stream():
        take(len(piece))
        num_bytes += len(piece)
        if num_bytes > settings.max_image_bytes:
            return _too_large(settings.max_image_bytes)  # nothing else comes that could be answered
        if piece:
            pieces.append(piece)
    return _fitting(b"".join(pieces), settings.max_image_bytes, EMPTY_BODY)


async def _read_form(
    body: AsyncIterator[bytes], content_type: str, settings: Settings, video: OtherFile | None
) -> DetectRequest:
    sinks: list[_MemorySink] = []
    names: list[str] = []

    async def open_sink(head: PartHead) -> FileSink:
        if head.name == VIDEO_FIELD and video is not None:
            return await video.open(head)
        if head.name != FILE_FIELD:
            raise field_fault(head.name, f"no file is wanted here; pictures go into `{FILE_FIELD}`")
        _check_number(len(sinks) + 1, settings)
        sinks.append(_MemorySink(settings.max_image_bytes))
        names.append(head.file_name or "")
        return sinks[-1]

    fields = await read_form(body, content_type, open_sink, repeatable=REPEATABLE_FIELDS, files=FILES)
    parameters = parse_fields(DetectParameters, fields, files=FILES)
    return DetectRequest([sink.picture() for sink in sinks], parameters, names=names)


async def _read_json(body: AsyncIterator[bytes], settings: Settings) -> DetectRequest:
    content = bytearray()
    async for piece in body:
        content += piece
    parsed = await to_thread.run_sync(_parse_json, bytes(content), settings)
    decode = partial(_decoded, parsed.images, settings.max_image_bytes)
    parameters = parsed.model_dump(exclude={"images"}, exclude_unset=True)
    return DetectRequest(await to_thread.run_sync(decode), DetectParameters(**parameters))


def _parse_json(content: bytes, settings: Settings) -> DetectBody:
    try:
        document = strict_json(content, most_values=MOST_VALUES + settings.max_detect_images * IMAGE_VALUES)
    except ValueError as error:
        raise BadRequestError(f"the body is not valid JSON: {error}" if content else EMPTY_BODY) from None
    images = document.get("images") if isinstance(document, dict) else None
    if isinstance(images, list) and images:  # before each is looked at
        _check_number(len(images), settings)
    try:
        return DetectBody.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise invalid_input(problems_of(faults, shape=DetectBody, sent=document)) from None


def _decoded(images: Sequence[EncodedImage], max_bytes: int) -> list[bytes | HarrierError]:
    return [_decoded_one(place, image.data, max_bytes) for place, image in enumerate(images)]


def _decoded_one(place: int, data: str, max_bytes: int) -> bytes | HarrierError:
    if len(data) > 2 * max_bytes + MOST_BLANKS:  # base64 needs four thirds, however its lines are broken
        return _too_large(max_bytes)
    try:
        picture = base64.b64decode("".join(data.split()), validate=True)
    except ValueError:  # also of characters beyond ASCII
        return fault_at(pointer_to("images", place, "data"), "not base64")
    return _fitting(picture, max_bytes, "the data is empty", pointer_to("images", place, "data"))


def _check_number(num_images: int, settings: Settings) -> None:
    if num_images > settings.max_detect_images:
        raise PayloadTooLargeError(f"at most {settings.max_detect_images} pictures may be sent at once")


def _given_twice(query: DetectParameters, body: DetectParameters) -> list[Problem]:
    """Parameters may come with the address or with the body, each in one place."""
    if not body.model_fields_set:
        return []
    twice = sorted(query.model_fields_set & body.model_fields_set)
    return [Problem(pointer=pointer_to(name), problem=GIVEN_TWICE) for name in twice]


def _unfit_for_pictures(num_images: int, query: DetectParameters, body: DetectParameters) -> list[Problem]:
    found = []
    if not num_images:
        found.append(Problem(pointer=pointer_to(FILE_FIELD), problem=f"there is no picture: {WAYS}"))
    places: dict[Place, DetectParameters] = {"query": query, "body": body}
    for place, given in places.items():
        if given.every is not None:
            found.append(Problem(pointer=pointer_to("every"), problem=NO_FRAMES, place=place))
    return found


def _merged(query: DetectParameters, body: DetectParameters) -> DetectParameters:
    if not body.model_fields_set:
        return query
    given: dict[str, Any] = {**_given(query), **_given(body)}
    return DetectParameters(**given)


def _given(parameters: DetectParameters) -> Mapping[str, Any]:
    return parameters.model_dump(exclude_unset=True)


@dataclass(slots=True)
class _MemorySink:
    """One picture on its way into memory; of one that is too large nothing is kept."""

    max_bytes: int
    content: bytearray = field(default_factory=bytearray)
    is_too_large: bool = False

    async def write(self, piece: bytes) -> None:
        if self.is_too_large:
            return
        self.content += piece
        if len(self.content) > self.max_bytes:
            self.is_too_large, self.content = True, bytearray()

    async def finish(self) -> None:
        """Nothing is left to do: the whole picture is in memory."""

    def picture(self) -> bytes | HarrierError:
        if self.is_too_large:
            return _too_large(self.max_bytes)
        return _fitting(bytes(self.content), self.max_bytes, "the file is empty", pointer_to(FILE_FIELD))


def _fitting(picture: bytes, max_bytes: int, if_empty: str, pointer: str = "") -> bytes | HarrierError:
    """Return the picture, or why it is none; nothing but its length is looked at here."""
    if not picture:
        fault = Problem(pointer=pointer, problem=if_empty)
        return UnsupportedPictureError(f"{pointer}: {if_empty}" if pointer else if_empty, problems=[fault])
    return picture if len(picture) <= max_bytes else _too_large(max_bytes)


def _too_large(max_bytes: int) -> PictureTooLargeError:
    return PictureTooLargeError(f"a picture may have at most {max_bytes} bytes")
