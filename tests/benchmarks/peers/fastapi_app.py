"""Plain FastAPI: `uvicorn tests.benchmarks.peers.fastapi_app:app`, with `--workers` for one process per core.

A body that is read as it comes is documented at https://fastapi.tiangolo.com/advanced/using-request-directly/,
work that blocks in a thread at https://www.starlette.io/threadpool/, one process per core at
https://fastapi.tiangolo.com/deployment/server-workers/.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool

from detection.errors import ImageError
from tests.benchmarks.peers.detector import Detector, load_detector


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model once per process."""
    app.state.detector = load_detector(os.environ.get("BENCH_BACKEND", "onnxruntime"))
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/detect")
async def detect(request: Request) -> Response:
    """Find objects in one picture."""
    detector: Detector = request.app.state.detector
    try:
        found = await run_in_threadpool(detector.look, await request.body())
    except ImageError as error:
        raise HTTPException(422, str(error)) from None
    return Response(found, media_type="application/json")
