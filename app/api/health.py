"""Is it alive, is it ready: for supervisors and balancers, without a key."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from enum import StrEnum

import redis
from anyio import to_thread
from fastapi import Response
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.api.dependencies import StateDep, create_router
from app.api.problems import documented
from app.api.shapes import Shape, example
from app.api.state import State
from app.database.revision import is_current
from app.database.tables import Worker, utc_now
from app.errors import HarrierError, HostNotAllowedError, InternalError, MethodNotAllowedError
from app.jobs.states import Queue
from app.settings import Settings

router = create_router("operations")

EVERYWHERE = (HostNotAllowedError, MethodNotAllowedError, InternalError)
"""What these calls may answer as well; nobody needs a key for them."""

BROKER_TIMEOUT_S = 1.0
FINE = "ok"
PATHS = ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready")
"""Answered also when there is too much of everything else."""


class Readiness(StrEnum):
    READY = "ready"
    DEGRADED = "degraded"
    """It serves, but jobs will wait: the broker or a kind of worker is missing."""
    NOT_READY = "not_ready"


class LiveRead(Shape):
    model_config = example(status="alive")

    status: str
    """Always `alive`."""


class ReadyRead(Shape):
    """What the service needs, and how it is; `ok` or what is wrong."""

    model_config = example(
        status="ready",
        checks={"database": "ok", "storage": "ok", "engine": "ok", "broker": "ok", "workers": "ok"},
    )

    status: Readiness
    """`ready`, `degraded` or `not_ready`."""
    checks: dict[str, str]
    """By what is needed: `ok`, or what is wrong."""


@router.get("/livez", response_model=LiveRead, responses=documented(*EVERYWHERE))
async def live() -> object:
    """Say that the process answers. Nothing else is looked at."""
    return LiveRead(status="alive")


@router.get(
    "/readyz",
    response_model=ReadyRead,
    responses={
        503: {"model": ReadyRead, "description": "Not ready; `checks` says what is missing."},
        **documented(*EVERYWHERE),
    },
)
async def ready(state: StateDep, response: Response) -> object:
    """Say whether requests can be served: database, files and engine; and whether jobs will be worked on."""
    needed, wanted = await asyncio.gather(what_is_needed(state), _wanted(state))
    if any(result != FINE for result in needed.values()):
        status = Readiness.NOT_READY
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    elif any(result != FINE for result in wanted.values()):
        status = Readiness.DEGRADED
    else:
        status = Readiness.READY
    return ReadyRead(status=status, checks={**needed, **wanted})


async def what_is_needed(state: State) -> dict[str, str]:
    """Return what no request can be served without, and how it is: `ok`, or what is wrong."""
    database, storage, engine = await asyncio.gather(
        to_thread.run_sync(_database, state), to_thread.run_sync(_storage, state), _engine(state)
    )
    draining = {"server": "it is stopping"} if state.draining.is_set() else {}
    return {"database": database, "storage": storage, "engine": engine, **draining}


async def _wanted(state: State) -> dict[str, str]:
    broker, workers = await asyncio.gather(
        to_thread.run_sync(_broker, state.settings), to_thread.run_sync(_workers, state)
    )
    return {"broker": broker, "workers": workers}


def _database(state: State) -> str:
    try:
        return FINE if is_current(state.database) else "the schema is not this version's; run the migrations"
    except SQLAlchemyError:
        return "it does not answer"


def _storage(state: State) -> str:
    try:
        state.storage.check()
    except OSError:
        return "it cannot be reached"
    return FINE


async def _engine(state: State) -> str:
    try:
        await state.engine.status()
    except HarrierError as error:
        return error.detail
    return FINE


def _broker(settings: Settings) -> str:
    try:
        with redis.Redis.from_url(
            _redis_url(settings),
            socket_timeout=BROKER_TIMEOUT_S,
            socket_connect_timeout=BROKER_TIMEOUT_S,
        ) as client:
            client.ping()
    except redis.RedisError:
        return "it does not answer; jobs wait until it does"
    return FINE


def _redis_url(settings: Settings) -> str:
    """Return the broker's address as the redis client writes it; Celery has its own way for sockets."""
    if settings.redis_url is None:
        return f"unix://{settings.broker_socket}?db=0"
    address = settings.redis_url.get_secret_value()
    if address.startswith("redis+socket://"):
        return address.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=")
    return address


def _workers(state: State) -> str:
    since = utc_now() - timedelta(seconds=state.settings.lease_s)
    try:
        with state.reading() as session:
            seen = set(session.scalars(select(Worker.queue).where(Worker.seen_at >= since)))
    except SQLAlchemyError:
        return "the database does not answer"
    missing = [queue.value for queue in Queue if queue not in seen]
    return f"none seen on queue {' and '.join(missing)}; its jobs wait" if missing else FINE
