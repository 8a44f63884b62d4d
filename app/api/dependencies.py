"""What routes ask for: sessions, the bell, the caller, the key of a request that may come twice."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.routing import APIRoute
from sqlalchemy.orm import Session

from app.api.context import request_id_of, route_path
from app.api.head import refuse_head, without_body
from app.api.idempotency import Once
from app.api.pagination import Paging, paging
from app.api.problems import documented
from app.api.query import check_query
from app.api.state import State
from app.api.strict_request import StrictRequest
from app.audit import Author
from app.datasets.contents import DatasetContents
from app.detect.engine_client import EngineClient
from app.errors import (
    BadRequestError,
    CrossSiteError,
    DatabaseUnavailableError,
    ForbiddenError,
    HarrierError,
    HostNotAllowedError,
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    InternalError,
    InvalidInputError,
    MethodNotAllowedError,
    PayloadTooLargeError,
    RateLimitedError,
    RequestTimeoutError,
    UnauthorizedError,
    UnsupportedMediaError,
)
from app.keys.service import Caller, Scope
from app.settings import Settings
from app.storage import Storage
from app.task_queue import Bell

EVERYWHERE: tuple[type[HarrierError], ...] = (
    BadRequestError,
    HostNotAllowedError,
    UnauthorizedError,
    ForbiddenError,
    CrossSiteError,
    MethodNotAllowedError,
    RequestTimeoutError,
    PayloadTooLargeError,
    UnsupportedMediaError,
    InvalidInputError,
    RateLimitedError,
    InternalError,
    DatabaseUnavailableError,
)
"""What any call may answer, because it happens before a route is reached."""
JOB_LOCATION = {"Location": {"description": "The job.", "schema": {"type": "string"}}}
"""What the description of a call says that answers with a job."""
CREATING = (IdempotencyKeyInUseError, IdempotencyKeyReusedError)
"""What a call that takes an Idempotency-Key may answer besides."""


class StrictRoute(APIRoute):
    """Reads JSON strictly, see strict_json; answers HEAD beside GET."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            refuse_head(request.scope, self.response_class)
            answer = await handle(StrictRequest(request.scope, request.receive))
            return without_body(request.scope, answer)

        return handle_strictly


def create_router(tag: str) -> APIRouter:
    return APIRouter(tags=[tag], route_class=StrictRoute)


def answers(*kinds: type[HarrierError]) -> dict[int | str, dict[str, Any]]:
    """Return the errors that a call can answer, as OpenAPI shows them, with those that any call can."""
    return documented(*EVERYWHERE, *kinds)


def get_state(request: Request) -> State:
    state: State = request.app.state.service
    return state


StateDep = Annotated[State, Depends(get_state)]


def get_settings_of(state: StateDep) -> Settings:
    return state.settings


def get_storage(state: StateDep) -> Storage:
    return state.storage


def get_bell(state: StateDep) -> Bell:
    return state.bell


def get_engine_client(state: StateDep) -> EngineClient:
    return state.engine


def get_contents(state: StateDep) -> DatasetContents:
    return state.contents


def writing_session(state: StateDep) -> Iterator[Session]:
    with state.sessions() as session:
        yield session


def reading_session(state: StateDep) -> Iterator[Session]:
    with state.reading() as session:
        yield session


def get_author(request: Request) -> Author:
    caller: Caller = request.state.caller
    return Author(caller.name, request_id_of(request.scope))


SessionDep = Annotated[Session, Depends(writing_session, scope="function")]


def once(
    request: Request,
    state: StateDep,
    session: SessionDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description="The same key with the same request gives the first answer again, for a day; with "
            "any other request, to whichever path, it is refused.",
        ),
    ] = None,
) -> Iterator[Once]:
    caller: Caller = request.state.caller
    request_once = Once(
        state.sessions,
        owner=caller.id,
        call=f"{request.method} {route_path(request.scope)}",
        key=idempotency_key,
        hours=state.settings.idempotency_hours,
    )
    request_once.reserve()
    try:
        yield request_once
    finally:
        session.rollback()  # on SQLite it would keep the release waiting; after a commit it does nothing
        request_once.release()


def check_scope(request: Request, *scopes: Scope) -> None:
    """Let only callers with one of these scopes pass.

    Raises:
        ForbiddenError: this one has others.
    """
    caller: Caller = request.state.caller
    if not any(map(caller.may, scopes)):
        wanted = " or ".join(f"`{scope}`" for scope in scopes)
        raise ForbiddenError(f"the key {caller.name!r} lacks the scope {wanted}")


def needs(*scopes: Scope) -> Any:
    """Return the dependency that lets callers with one of these scopes pass, with what is described."""

    async def check(request: Request) -> None:  # which takes no thread
        check_scope(request, *scopes)
        check_query(request)

    return Depends(check)


SettingsDep = Annotated[Settings, Depends(get_settings_of)]
StorageDep = Annotated[Storage, Depends(get_storage)]
BellDep = Annotated[Bell, Depends(get_bell)]
EngineDep = Annotated[EngineClient, Depends(get_engine_client)]
ContentsDep = Annotated[DatasetContents, Depends(get_contents)]
ReadingDep = Annotated[Session, Depends(reading_session, scope="function")]
AuthorDep = Annotated[Author, Depends(get_author)]
OnceDep = Annotated[Once, Depends(once, scope="function")]
PagingDep = Annotated[Paging, Depends(paging)]
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9-]{1,64}$", description="An id as the API gave it.")]
