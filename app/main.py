"""The HTTP application: routes, what surrounds them, and the order in which it starts and stops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from anyio import to_thread
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from app.api import docs, health, operations, streams
from app.api.context import RequestContext
from app.api.error_handlers import add_error_handlers
from app.api.gate import Gate
from app.api.guard import Guard
from app.api.head import Head
from app.api.limits import RequestLimits
from app.api.openapi import describe
from app.api.origins import Origins
from app.api.prefix import Prefix, check_prefix
from app.api.proxies import TrustedProxies
from app.api.state import State, create_state
from app.database.revision import is_current
from app.datasets import routes as datasets
from app.detect import routes as detect
from app.detect.engine_client import EngineClient
from app.detect.front_door import FrontDoor
from app.jobs import routes as jobs
from app.keys.service import check_exposure
from app.models import routes as models
from app.models.analysis import routes as analysis
from app.models.plan import routes as plan
from app.serving import routes as serving
from app.settings import Settings, get_settings
from app.task_queue import Bell
from app.training import routes as training
from app.usage import routes as usage
from app.v2 import routes as open_inference
from app.videos import routes as videos
from app.web import routes as web

REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "If-Range",
    "Inference-Header-Content-Length",
    "Last-Event-ID",
    "Range",
    "X-API-Key",
    "X-Request-ID",
)
"""What pages of allowed origins may send."""
ANSWER_HEADERS = (
    "Accept-Ranges",
    "Allow",
    "Content-Disposition",
    "Content-Length",
    "Content-Range",
    "ETag",
    "Idempotency-Replayed",
    "Inference-Header-Content-Length",
    "Location",
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Harrier-Failed",
    "X-Harrier-Model",
    "X-Request-ID",
)
"""What they may read of an answer."""


UNUSED_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False)
"""Of FastAPI: what is to be known of requests is in the log and in /metrics. To find out for each request
that nobody has set it up takes a twentieth of the time that the API spends on a picture."""


class SchemaError(Exception):
    """The database was not migrated, or by another version."""


DESCRIPTION = """Upload a labelled image archive, train an object detector on it, send pictures to `/detect`.

1. `POST /datasets` with a zip, then `GET /datasets/{id}/report`
2. `POST /train`, then `GET /jobs/{id}`
3. `POST /detect` with a picture

A second stage classifies what was detected: `POST /train` with `task: classify` learns from crops of boxes,
or from an archive with one folder per class, and `/detect?classifier=` asks it about every box. Detectors are
measured by COCO's rules (AP), classifiers by their accuracy; `tta` looks at each picture several times.
"""


def create_app(
    settings: Settings | None = None, *, bell: Bell | None = None, engine: EngineClient | None = None
) -> FastAPI:
    """Return the application. Nothing is connected before it starts."""
    state = create_state(settings or get_settings(), bell=bell, engine=engine)
    app = FastAPI(
        title="Harrier",
        version=version("harrier"),
        description=DESCRIPTION,
        lifespan=_lifespan(state),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        telemetry=UNUSED_TELEMETRY,
    )
    app.state.service = state
    for module in (
        datasets,
        training,
        jobs,
        streams,
        models,
        analysis,
        plan,
        detect,
        open_inference,
        videos,
        usage,
        serving,
        operations,
        health,
        docs,
        web,
    ):
        app.include_router(module.router)
    add_error_handlers(app)
    describe(app)
    _add_surroundings(app, state)
    return app


def _add_surroundings(app: FastAPI, state: State) -> None:
    """Add what every request passes; the last one added is the outermost."""
    app.add_middleware(Head)
    app.add_middleware(RequestLimits, settings=state.settings)
    gate = Gate(
        settings=state.settings, sessions=state.sessions, reading=state.reading, changes=state.changes
    )
    app.add_middleware(Guard, gate=gate)
    if state.settings.cors_origins:
        app.add_middleware(
            Origins,
            allow_origins=state.settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "PATCH", "DELETE"],
            allow_headers=REQUEST_HEADERS,
            expose_headers=ANSWER_HEADERS,
        )
    app.add_middleware(
        FrontDoor, gate=gate, settings=state.settings, known=detect.known_queries, answer=detect.answer
    )
    if state.settings.root_path:
        check_prefix(state.settings.root_path, [*app.openapi()["paths"], *docs.PATHS, *web.PATHS])
        app.add_middleware(Prefix, prefix=state.settings.root_path)
    app.add_middleware(RequestContext, measures=state.measures)
    if state.settings.trusted_proxies:
        app.add_middleware(TrustedProxies, trusted=state.settings.trusted_proxies)


def _check(state: State) -> None:
    """Refuse to start what cannot work, or what would be open to others."""
    if not is_current(state.database):
        raise SchemaError("the database does not have this version's schema: run `harrier migrate`")
    check_exposure(state.settings, state.sessions)


def _lifespan(state: State) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await to_thread.run_sync(_check, state)
            # The first request with a query would wait for it, for seconds, and slow down all others.
            await to_thread.run_sync(app.openapi)
            await state.events.start()
            state.detection.watch.start()
            yield
        finally:
            await state.close()

    return lifespan
