"""The first request after an alias has moved to a model that had to be loaded, beside the hundredth."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from app.engine.device import choose_device
from app.settings import Settings
from tests.benchmarks.comparison import Claim, claim
from tests.benchmarks.conftest import Bench
from tests.benchmarks.field import ONNX
from tests.benchmarks.harriers import Harrier, import_model, serving_coco

pytestmark = [pytest.mark.benchmark, pytest.mark.reference]

SWAPS = int(os.environ.get("BENCH_FIRST_SWAPS", "20"))
REQUESTS = 100
LAST = 10
"""So many answers up to the hundredth are its time: of a single one the noise would be half the ratio."""
AS_FAST = 1.5
"""Times the hundredth: it also reads anew which model is meant, and finds cold caches."""
SHOWN = (1, 2, 3, 10, 100)
ALIAS = "production"
ONE_MODEL: dict[str, Any] = {"engine_model_bytes": 1}
"""What has lost its alias goes at once, so that every move is a load."""


def test_serving_first(bench: Bench, reference: Path, coco_pictures: list[str]) -> None:
    """The first, the next ones and the hundredth, for each backend that there is to choose from."""
    picture, claims = Path(coco_pictures[0]).read_bytes(), list[Claim]()
    for executor in executors():
        with serving_coco(executor, reference, backend=executor, **ONE_MODEL) as harrier:
            models = [import_model(harrier.serve, reference, "coco again"), harrier.model_id]
            before = loads(harrier)
            moves = [moved(harrier, models[number % 2], picture) for number in range(SWAPS)]
            loaded = loads(harrier) - before
        hundredth_ms = [statistics.median(times_ms[-LAST:]) for times_ms, _ in moves]
        times = {f"request {n}": [times_ms[n - 1] for times_ms, _ in moves] for n in SHOWN}
        bench.keep(
            executor,
            swaps=SWAPS,
            **times,
            hundredth=hundredth_ms,
            move_ms=[each for _, each in moves],
            loads=loaded,
        )
        ratios = [first / last for first, last in zip(times["request 1"], hundredth_ms, strict=True)]
        claims.append(claim(f"first / hundredth, {executor}", "<=", AS_FAST, ratios))
        claims.append(claim(f"loads, {executor}", ">=", SWAPS, [loaded]))
    bench.judge(*claims)


def executors() -> list[str]:
    """Return what Harrier serves with by itself, and what it may choose on this machine."""
    return [ONNX, *(shape.executor for shape in choose_device(Settings(device="cpu")).candidates)]


def moved(harrier: Harrier, model_id: str, picture: bytes) -> tuple[list[float], float]:
    """Move the alias; return how long each request took after that was answered, and the move itself."""
    with connected(harrier.serve.settings.port) as line:
        began = time.perf_counter()
        ask(line, "PATCH", f"/models/{model_id}", json.dumps({"alias": ALIAS}).encode(), "application/json")
        move_ms = (time.perf_counter() - began) * 1000
        times_ms = []
        for _ in range(REQUESTS):
            began = time.perf_counter()
            answer = ask(line, "POST", f"/detect?model={ALIAS}", picture, "image/jpeg")
            times_ms.append((time.perf_counter() - began) * 1000)
            assert json.loads(answer)["model"] == model_id
    return times_ms, move_ms


@contextmanager
def connected(port: int) -> Iterator[HTTPConnection]:
    line = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        line.connect()
        yield line
    finally:
        line.close()


def ask(line: HTTPConnection, method: str, path: str, body: bytes, media_type: str) -> bytes:
    line.request(method, path, body, {"Content-Type": media_type})
    response = line.getresponse()
    content = response.read()
    assert response.status == 200, content
    return content


def loads(harrier: Harrier) -> int:
    """Return how often the engine has loaded a model."""
    log = harrier.serve.settings.home_path / "logs" / "engine.log"
    return log.read_text(encoding="utf-8").count("model loaded")
