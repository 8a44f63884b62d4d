"""`POST /detect`: pictures in, boxes out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request, Response

from app.api.context import request_id_of
from app.api.dependencies import StateDep, answers, create_router, needs
from app.api.state import State
from app.detect.accept import wants_jpeg
from app.detect.bodies import read_request
from app.detect.door import DetectDoor
from app.detect.errors import (
    DamagedPictureError,
    ModelUnavailableError,
    PictureTooLargeError,
    UnsupportedPictureError,
)
from app.detect.schemas import DetectAnswer, DetectBody, DetectParameters
from app.detect.service import ClientGoneError, answer_body, while_connected
from app.detect.wire import Detected
from app.errors import (
    DrainingError,
    EngineUnavailableError,
    HarrierError,
    InvalidInputError,
    NoModelError,
    NotAcceptableError,
    NotFoundError,
    OverloadedError,
    WrongTaskError,
)
from app.keys.service import Scope

router = create_router("detection")

CLIENT_GONE = 499
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
RAW_BODY = {"schema": PICTURE, "example": "(the bytes of the file: curl --data-binary @photo.jpg)"}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "JPEG, PNG, WebP or BMP, told by content: raw, as files of a form, or as base64 in JSON.",
    "content": {
        "image/*": RAW_BODY,
        "application/octet-stream": RAW_BODY,
        "multipart/form-data": {
            "schema": _body_schema("image", PICTURE, classes=ONE_OR_MANY_CLASSES),
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
            "content": {"image/jpeg": {"schema": PICTURE}},
            "description": "Boxes, or the annotated picture.",
        },
    },
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def detect(request: Request, state: StateDep, query: Annotated[DetectParameters, Query()]) -> Response:
    """Send one picture or several, get boxes in the pixels of each picture as a person sees it.

    A single picture that cannot be used is an error (413, 415 or 422). With several, the answer is 200 and
    holds either a result or a problem for each, in the order sent. With `Accept: image/jpeg` the answer to a
    single picture is that picture with its detections drawn.
    """
    state.detection.known_queries.remember(request.scope["query_string"], query)
    return await _answer(request, state, query)


def door(state: State) -> DetectDoor:
    """Return the short way to the same answers."""

    async def answer(request: Request, query: DetectParameters) -> Response:
        return await _answer(request, state, query)

    return DetectDoor(state.detection.known_queries, answer)


async def _answer(request: Request, state: State, query: DetectParameters) -> Response:
    request_id = request_id_of(request.scope)
    with state.detection.room.enter() as take:
        sent = await read_request(request, query, state.settings, take)
        as_jpeg = wants_jpeg(request.headers.get("accept", ""))
        if as_jpeg and len(sent.images) > 1:
            raise NotAcceptableError(
                "an answer as JPEG holds one picture; ask for application/json, or send one"
            )
        looking = state.detection.detect(sent, annotate=as_jpeg or sent.parameters.annotate)
        try:
            model_id, images = await while_connected(request, looking)
        except ClientGoneError:
            return Response(status_code=CLIENT_GONE)
    if len(images) == 1 and isinstance(images[0], HarrierError):
        raise images[0]
    if as_jpeg:
        return _picture(model_id, images[0])
    return Response(answer_body(model_id, images, request_id), media_type="application/json")


def _picture(model_id: str, image: Detected | HarrierError) -> Response:
    assert isinstance(image, Detected)
    return Response(image.annotated, media_type="image/jpeg", headers={"X-Harrier-Model": model_id})
