"""The Open Inference Protocol: health, what there is, and `infer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request, Response

from app.api import health
from app.api.context import CLIENT_GONE
from app.api.dependencies import EVERYWHERE, ReadingDep, StateDep, create_router, needs
from app.api.forms import inlined
from app.api.short_bodies import whole_body
from app.api.state import State
from app.detect.bodies import DetectRequest
from app.detect.errors import (
    DamagedPictureError,
    ModelUnavailableError,
    PictureTooLargeError,
    UnsupportedPictureError,
)
from app.detect.leaving import ClientGoneError, while_connected
from app.detect.routes import ANSWER_HEADERS
from app.detect.schemas import DetectParameters
from app.errors import (
    DrainingError,
    EngineUnavailableError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
    WrongTaskError,
)
from app.keys.service import Scope
from app.v2.answers import BINARY, respond
from app.v2.errors import documented
from app.v2.inputs import LENGTH_HEADER, read_inference
from app.v2.models import PLATFORM, configuration, index, metadata
from app.v2.schemas import (
    IndexEntry,
    InferAnswer,
    InferRequest,
    ModelConfiguration,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)

router = create_router("open inference protocol")

EXTENSIONS = ["binary_tensor_data", "model_configuration"]
MODEL = "/v2/models/{model_name}"
VERSION = MODEL + "/versions/{model_version}"
LOOKING = (
    NotFoundError,
    WrongTaskError,
    PictureTooLargeError,
    UnsupportedPictureError,
    DamagedPictureError,
    OverloadedError,
    EngineUnavailableError,
    ModelUnavailableError,
    DrainingError,
)
ASKING = documented(*EVERYWHERE, NotFoundError, WrongTaskError)
ASKING_ENGINE = documented(*EVERYWHERE, NotFoundError, WrongTaskError, EngineUnavailableError)
PATH_PARAMETERS = {
    "model_name": "An id or alias.",
    "model_version": "The id that the model must have.",
}
Call = TypeVar("Call", bound=Callable[..., Any])
BINARY_BODY = {"type": "string", "format": "binary"}


def _parameter(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": PATH_PARAMETERS[name],
    }


def _described(path: str, **more: Any) -> dict[str, Any]:
    """Return what OpenAPI says of a path, whose parameters FastAPI is not told: it would promise a 422."""
    of_path = [_parameter(name) for name in PATH_PARAMETERS if f"{{{name}}}" in path]
    return {**more, "parameters": [*of_path, *more.get("parameters", ())]}


def _model_call(
    method: str,
    suffix: str = "",
    *,
    scopes: tuple[Scope, ...] = (Scope.READ, Scope.DETECT),
    described: Mapping[str, Any] | None = None,
    **options: Any,
) -> Callable[[Call], Call]:
    """Return the decorator for a call about a model, with and without the version in its path."""

    def register(call: Call) -> Call:
        for path in (MODEL + suffix, VERSION + suffix):
            router.add_api_route(
                path,
                call,
                methods=[method],
                dependencies=[needs(*scopes)],
                openapi_extra=_described(path, **(described or {})),
                **options,
            )
        return call

    return register


INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": f"JSON; or JSON with the tensor's bytes behind it, and `{LENGTH_HEADER}`; or with a "
        "length of 0 the picture itself.",
        "content": {
            "application/json": {"schema": inlined(InferRequest.model_json_schema())},
            BINARY: {"schema": BINARY_BODY, "example": "(JSON and bytes, as tritonclient sends them)"},
        },
    },
    "parameters": [
        {
            "name": LENGTH_HEADER,
            "in": "header",
            "required": False,
            "schema": {"type": "integer", "minimum": 0},
            "description": "How many bytes of the body are JSON; the tensor stands behind. Absent is all.",
        }
    ],
}
INFER_ANSWERS: dict[int | str, dict[str, Any]] = {
    **documented(*EVERYWHERE, *LOOKING),
    200: {
        "content": {BINARY: {"schema": BINARY_BODY}},
        "description": "The outputs, in JSON or as bytes behind it.",
        "headers": {
            LENGTH_HEADER: {
                "schema": {"type": "string"},
                "description": "How many bytes of the answer are JSON; absent is all.",
            },
            **{name: ANSWER_HEADERS[name] for name in ("Server-Timing", "X-Harrier-Model")},
        },
    },
}


@dataclass(frozen=True, slots=True)
class AskedModel:
    """The model that a path names."""

    name: str
    id: str
    to_look: str
    """By what it is asked to look: its id when the path names that as the version, else as the path does."""


async def _asked_model(request: Request, state: StateDep) -> AskedModel:
    name: str = request.path_params["model_name"]
    wanted: str | None = request.path_params.get("model_version")
    model = await state.detection.models.choose(name)
    if wanted not in (None, model.id):
        raise NotFoundError(f"the model {name!r} has one version, its id, which is {model.id!r} now")
    return AskedModel(name, model.id, wanted or name)


ModelDep = Annotated[AskedModel, Depends(_asked_model)]


@router.get("/v2/health/live", response_model=ServerLive, responses=documented(*health.EVERYWHERE))
async def server_live() -> object:
    """Say that the process answers. Nothing else is looked at."""
    return ServerLive(live=True)


@router.get(
    "/v2/health/ready",
    response_model=ServerReady,
    responses=documented(*health.EVERYWHERE, UnavailableError),
)
async def server_ready(state: StateDep) -> object:
    """Say whether requests can be served: database, files and engine."""
    wrong = await _missing(state)
    if wrong:
        raise UnavailableError(wrong)
    return ServerReady(ready=True)


async def _missing(state: State) -> str:
    checks = await health.what_is_needed(state)
    return "; ".join(f"{name}: {result}" for name, result in checks.items() if result != health.FINE)


@router.get(
    "/v2",
    dependencies=[needs(Scope.READ, Scope.DETECT)],
    response_model=ServerMetadata,
    responses=documented(*EVERYWHERE),
)
async def server_metadata() -> object:
    """Show which server this is, and which extensions of the protocol it offers."""
    return ServerMetadata(name=PLATFORM, version=version("harrier"), extensions=EXTENSIONS)


@router.post(
    "/v2/repository/index",
    dependencies=[needs(Scope.READ, Scope.DETECT)],
    response_model=list[IndexEntry],
    responses=documented(*EVERYWHERE),
)
def repository_index(session: ReadingDep) -> object:
    """List every name by which a detector can be asked. A body is not looked at: all of them are ready."""
    return list(index(session))


@_model_call("GET", response_model=ModelMetadata, responses=ASKING)
async def model_metadata(asked: ModelDep) -> object:
    """Show the inputs and outputs of a model, and its version: the id that the name means now."""
    return metadata(asked.name, asked.id)


@_model_call("GET", "/ready", response_model=ModelReady, responses=ASKING_ENGINE)
async def model_ready(asked: ModelDep, state: StateDep) -> object:
    """Say whether a model answers: it is there, and the engine is."""
    await state.engine.status()
    return ModelReady(name=asked.name, ready=True)


@_model_call("GET", "/config", response_model=ModelConfiguration, responses=ASKING)
async def model_configuration(asked: ModelDep) -> object:
    """Show as much of Triton's configuration of a model as its clients ask for before they begin."""
    return configuration(asked.name)


@_model_call(
    "POST",
    "/infer",
    scopes=(Scope.DETECT,),
    described=INFER_BODY,
    response_model=InferAnswer,
    responses=INFER_ANSWERS,
)
async def infer(request: Request, state: StateDep, asked: ModelDep) -> Response:
    """Find objects in pictures: `image` holds whole picture files, the outputs hold as many rows.

    `num_detections` counts the boxes of each picture, and the other outputs are padded to the fullest one. A
    picture among several that cannot be used has the count -1 and its reason in `errors`; when that output is
    not wanted, or it is the only picture, the request is an error.
    """
    try:
        return await _look(request, state, asked)
    except UnavailableError as refused:
        state.detection.measures.note_rejected(refused.code)
        raise


async def _look(request: Request, state: State, asked: AskedModel) -> Response:
    with state.detection.room.enter(is_here=whole_body(request.scope) is not None) as take:
        wish = await read_inference(request, state.settings, take)
        sent = DetectRequest(wish.images, _parameters(wish.request, asked))
        try:
            model_id, images = await while_connected(request, state.detection.detect(sent, annotate=False))
        except ClientGoneError:
            return Response(status_code=CLIENT_GONE)
    return respond(wish.request, asked.name, model_id, images)


def _parameters(wish: InferRequest, asked: AskedModel) -> DetectParameters:
    given = wish.parameters.model_dump(exclude_unset=True, exclude={"binary_data_output"})
    return DetectParameters(**given, model=asked.to_look)
