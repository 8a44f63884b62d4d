"""Harrier itself under measurement: `harrier serve` with the COCO weights, as a user would start it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from app.detect.engine_client import EngineClient
from app.detect.wire import EngineStatus
from detection.model_files import ONNX_FILE, RECORD_FILE, WEIGHTS_FILE, encode_record
from detection.model_record import ModelRecord
from tests.benchmarks.started import NOT_FOR_OTHERS, Server, rss_mb
from tests.serving import Serve, short_folder

CHOICE_PASSES = 3
"""How often all pictures are shown at most until Harrier has settled for a backend of its own."""
CHOICE_PAUSE_S = 0.1
CHOICE_SETTLES_S = 3.0
ROLES = {"api": "app.server", "engine": "app.engine"}
FILES = {"onnx": ONNX_FILE, "safetensors": WEIGHTS_FILE}


@dataclass(frozen=True)
class Harrier:
    """A running server with one model, which it serves by default."""

    serve: Serve
    model_id: str
    server: Server

    def roles(self) -> dict[str, list[psutil.Process]]:
        """Return the processes that a request goes through, as they are now."""
        running = [(process, process.cmdline()) for process in self.serve.processes()]
        return {
            role: [process for process, command in running if word in command] for role, word in ROLES.items()
        }

    def rss_mb(self) -> dict[str, float]:
        """Return their resident memory."""
        return {role: rss_mb(processes) for role, processes in self.roles().items()}

    def trials(self) -> dict[str, bool]:
        """Return the backends that were tried for the model, and whether they were accepted."""
        kept = self.serve.settings.home_path / "cache" / "accepted.json"
        found = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        return {
            key.split()[1]: trial["accepted"] for key, trial in found.items() if key.startswith(self.model_id)
        }

    def executor(self) -> str:
        """Return what runs the model: backend, and precision unless it is fp32."""
        accepted = (name for name, is_accepted in self.trials().items() if is_accepted)
        return next(accepted, None) or asyncio.run(_status(self.serve)).backend


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


def let_choose(harrier: Harrier, pictures: Sequence[bytes]) -> str:
    """Show pictures until Harrier has decided which backend runs the model, and return it.

    A faster backend is tried beside the traffic, on pictures that come while nothing waits.
    """
    headers = {"Content-Type": "image/jpeg"}
    for picture in [*pictures] * CHOICE_PASSES:
        harrier.serve.http.post("/detect", content=picture, headers=headers).raise_for_status()
        time.sleep(CHOICE_PAUSE_S)
        if harrier.trials():
            break
    time.sleep(CHOICE_SETTLES_S)  # what was accepted is loaded for every model that is held
    return harrier.executor()
