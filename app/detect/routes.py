"""`POST /detect`: pictures in, boxes out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request, Response

from app.api.context import CLIENT_GONE, request_id_of
from app.api.dependencies import CREATING, JOB_LOCATION, answers, create_router, get_state, needs
from app.api.short_bodies import whole_body
from app.api.state import State
from app.detect.accept import choose_format
from app.detect.answers import respond
from app.detect.bodies import read_request
from app.detect.errors import (
    DamagedPictureError,
    ModelUnavailableError,
    PictureTooLargeError,
    UnsupportedPictureError,
)
from app.detect.formats import ALL as FORMS
from app.detect.formats import Answer
from app.detect.known_queries import KnownQueries
from app.detect.leaving import ClientGoneError, while_connected
from app.detect.schemas import DetectAnswer, DetectBody, DetectParameters
from app.errors import (
    DrainingError,
    EngineUnavailableError,
    HarrierError,
    InvalidInputError,
    NoModelError,
    NoSpaceError,
    NotAcceptableError,
    NotFoundError,
    OverloadedError,
    QuotaExceededError,
    UnavailableError,
    WrongTaskError,
)
from app.jobs.schemas import JobRead
from app.keys.service import Scope
from app.videos.examples import VIDEO_JOB_EXAMPLE
from app.videos.receiving import ONCE_PARAMETER, VideoPart, is_form, is_video, receive_video

router = create_router("detection")
known_queries = KnownQueries()
"""What a query says is the same for every application."""

ERRORS = (
    NotFoundError,
    NotAcceptableError,
    NoModelError,
    WrongTaskError,
    PictureTooLargeError,
    UnsupportedPictureError,
    InvalidInputError,
    DamagedPictureError,
    OverloadedError,
    EngineUnavailableError,
    ModelUnavailableError,
    DrainingError,
    QuotaExceededError,
    NoSpaceError,
    *CREATING,
)
PICTURE = {"type": "string", "format": "binary"}


ENCODED_PICTURE = {
    "type": "object",
    "required": ["data"],
    "additionalProperties": False,
    "properties": {
        "data": {"type": "string", "contentEncoding": "base64", "description": "The whole picture file."}
    },
}


def _body_schema(field: str, item: dict[str, Any], **other_forms: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a body that holds pictures under `field`, and the parameters beside them."""
    parameters = DetectParameters.model_json_schema()
    pictures = {"type": "array", "items": item, "minItems": 1, "description": "One picture or several."}
    properties = {field: pictures, **parameters["properties"], **other_forms}
    return {**parameters, "properties": properties, "required": [field]}


ONE_OR_MANY_CLASSES = {
    "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}],
    "description": "Only these classes: the field again for every name, or once with a JSON list of names.",
}
ANSWER_HEADERS = {
    "Server-Timing": {
        "schema": {"type": "string"},
        "description": "Milliseconds by stage, summed over the pictures, as `timing` of the JSON has them.",
    },
    "X-Harrier-Model": {
        "schema": {"type": "string"},
        "description": "Id of the model that looked; not with the JSON, which says it itself.",
    },
    "X-Harrier-Failed": {
        "schema": {"type": "string"},
        "description": "The places of those of several pictures that could not be used, from 0: `1, 3`. "
        "Absent if there are none, and with the JSON, which holds a problem for each.",
    },
}
VIDEO = {
    **PICTURE,
    "description": "One video instead of pictures: MP4, MOV, MKV, WebM or AVI, told by content.",
}


def _form_schema() -> dict[str, Any]:
    """Return the schema of a form, which holds pictures or a video."""
    schema = _body_schema("image", PICTURE, classes=ONE_OR_MANY_CLASSES, video=VIDEO)
    del schema["required"]
    return {**schema, "anyOf": [{"required": ["image"]}, {"required": ["video"]}]}


RAW_BODY = {"schema": PICTURE, "example": "(the bytes of the file: curl --data-binary @photo.jpg)"}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "JPEG, PNG, WebP or BMP, told by content: raw, as files of a form, or as base64 in JSON. "
    "Or a video, raw or as the file `video` of a form.",
    "content": {
        "image/*": RAW_BODY,
        "application/octet-stream": RAW_BODY,
        "video/*": {"schema": PICTURE, "example": "(the bytes of the file: curl --data-binary @clip.mp4)"},
        "multipart/form-data": {
            "schema": _form_schema(),
            "example": {"image": ["photo.jpg"], "score_threshold": 0.5, "classes": ["dog", "person"]},
        },
        "application/json": {
            "schema": _body_schema(
                "images", ENCODED_PICTURE, tta=DetectBody.model_json_schema()["properties"]["tta"]
            ),
            "example": {"images": [{"data": "/9j/4AAQSkZJRgABAQAAAQABAAD…"}], "score_threshold": 0.5},
        },
    },
}


@router.post(
    "/detect",
    summary="Find objects in pictures",
    dependencies=[needs(Scope.DETECT)],
    response_model=DetectAnswer,
    responses={
        **answers(*ERRORS),
        200: {
            "content": {form.media_type: form.described() for form in FORMS},
            "description": "Boxes in the form that `Accept` names, or the annotated picture.",
            "headers": ANSWER_HEADERS,
        },
        202: {
            "model": JobRead,
            "description": "Of a video: the job that looks at it.",
            "headers": JOB_LOCATION,
            "content": {"application/json": {"example": VIDEO_JOB_EXAMPLE}},
        },
    },
    openapi_extra={"requestBody": REQUEST_BODY, "parameters": [ONCE_PARAMETER]},
)
async def detect(request: Request, query: Annotated[DetectParameters, Query()]) -> Response:
    """Send one picture or several, get boxes in the pixels of each picture as a person sees it.

    A single picture that cannot be used is an error (413, 415 or 422). With several, the answer is 200 and
    holds either a result or a problem for each, in the order sent.

    `Accept` chooses the form: COCO results, Label Studio tasks, YOLO text, or with `image/jpeg` the single
    picture with its detections drawn. Classifications are in the JSON alone.

    A video (MP4, MOV, MKV, WebM, AVI) becomes a job: follow `links.self`, then read `links.detections` and
    `links.video`.
    """
    known_queries.remember(request.scope["query_string"], query)
    return await answer(request, query)


async def answer(request: Request, query: DetectParameters) -> Response:
    """Answer a request whose query has been read: here, or before by the same words."""
    state = get_state(request)
    try:
        return await _dispatch(request, state, query)
    except UnavailableError as refused:
        state.detection.measures.note_rejected(refused.code)
        raise


async def _dispatch(request: Request, state: State, query: DetectParameters) -> Response:
    content_type = request.headers.get("content-type", "")
    if is_video(content_type):
        return await receive_video(request, state, query)
    if not is_form(content_type):
        return await _look(request, state, query)
    async with VideoPart(request, state) as video:
        return await _look(request, state, query, video)


async def _look(
    request: Request, state: State, query: DetectParameters, video: VideoPart | None = None
) -> Response:
    with state.detection.room.enter(is_here=whole_body(request.scope) is not None) as take:
        sent = await read_request(request, query, state.settings, take, video)
        if video is not None and video.is_open:
            return await video.answer(sent)
        form = choose_format(", ".join(request.headers.getlist("accept")), several=len(sent.images) > 1)
        looking = state.detection.detect(sent, annotate=form.draws(asked=sent.parameters.annotate))
        try:
            model_id, images = await while_connected(request, looking)
        except ClientGoneError:
            return Response(status_code=CLIENT_GONE)
    if len(images) == 1 and isinstance(images[0], HarrierError):
        raise images[0]
    return respond(form, Answer(model_id, images, sent.names, request_id_of(request.scope)))
