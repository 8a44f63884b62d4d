"""Harrier itself under measurement: `harrier serve` with the COCO weights, as a user would start it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from app.detect.engine_client import EngineClient
from app.detect.wire import EngineStatus
from detection.model_files import ONNX_FILE, RECORD_FILE, WEIGHTS_FILE, encode_record
from detection.model_record import ModelRecord
from tests.benchmarks.started import NOT_FOR_OTHERS, Server
from tests.serving import Serve, short_folder

CHOICE_S = 60.0
"""How long Harrier may take, with pictures coming in, to settle for a backend of its own."""
FILES = {"onnx": ONNX_FILE, "safetensors": WEIGHTS_FILE}


@dataclass(frozen=True)
class Harrier:
    """A running server with one model, which it serves by default."""

    serve: Serve
    model_id: str
    server: Server

    def process(self, role: str) -> psutil.Process:
        """Return `api` or `engine`."""
        word = {"api": "app.server", "engine": "app.engine"}[role]
        found = self.serve.pid_of(word)
        assert found is not None, f"no process runs {word}"
        return psutil.Process(found)

    def rss_mb(self) -> dict[str, float]:
        """Return the resident memory of the two processes that a request goes through."""
        return {role: self.process(role).memory_info().rss / 1e6 for role in ("api", "engine")}

    def executor(self) -> str:
        """Return what runs the model: backend, and precision unless it is fp32."""
        return asyncio.run(_status(self.serve)).backend


async def _status(serve: Serve) -> EngineStatus:
    client = EngineClient(serve.settings)
    try:
        return await client.status()
    finally:
        await client.close()


@contextmanager
def serving_coco(name: str, reference: Path, **settings: Any) -> Iterator[Harrier]:
    """Start Harrier with YOLOX-nano and its COCO weights, and leave nothing of it."""
    with short_folder() as folder:
        running = Serve(folder / "home", **settings)
        for variable in [each for each in running.environment if each.startswith(NOT_FOR_OTHERS)]:
            if not variable.startswith("HARRIER_"):
                del running.environment[variable]
        with running:
            server = Server(
                name=name, port=running.settings.port, path="/detect", processes=running.processes
            )
            yield Harrier(running, import_model(running, reference, "coco"), server)


def import_model(serve: Serve, reference: Path, name: str) -> str:
    """Import the COCO weights once more and return the model's id."""
    with (reference / "weights" / "yolox-nano-coco.pth").open("rb") as file:
        answer = serve.http.post("/models/import", files={"weights": file}, data={"name": name})
    assert answer.status_code == 202, answer.text
    model_id: str = serve.succeeded(answer.headers["Location"])["result"]["model_id"]
    return model_id


def fetch_model(harrier: Harrier, folder: Path) -> str:
    """Write the very files that Harrier serves into a folder, and return the sha256 of the graph."""
    model = harrier.serve.http.get(f"/models/{harrier.model_id}").json()
    for format_name, file in FILES.items():
        got = harrier.serve.http.get(
            f"/models/{harrier.model_id}/weights", params={"format": format_name}
        ).raise_for_status()
        (folder / file).write_bytes(got.content)
    height, width = model["input_size"]
    record = ModelRecord(
        architecture=model["architecture"], classes=tuple(model["classes"]), input_size_hw=(height, width)
    )
    (folder / RECORD_FILE).write_bytes(encode_record(record))
    sha256: str = next(file["sha256"] for file in model["files"] if file["format"] == "onnx")
    return sha256


def wait_for_choice(harrier: Harrier, pictures: list[bytes], *, settled_s: float = 5.0) -> str:
    """Show pictures until the backend has not changed for a while, and return it."""
    end, last, since = time.monotonic() + CHOICE_S, "", time.monotonic()
    while time.monotonic() < end and time.monotonic() - since < settled_s:
        for picture in pictures[:20]:
            headers = {"Content-Type": "image/jpeg"}
            harrier.serve.http.post("/detect", content=picture, headers=headers).raise_for_status()
        now = harrier.executor()
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.2)  # what is measured beside the traffic is measured while nothing waits
    return last
