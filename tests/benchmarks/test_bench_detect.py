"""How fast pictures are looked at: in one process, and through `/detect` of a running server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx2
import pytest
import torch

from detection.deploy.package import write_model
from detection.inference.predictor import Predictor
from detection.model_record import ModelRecord
from detection.models import create_model
from detection.models.detector import Detector
from tests.benchmarks.conftest import DEVICES, Bench
from tests.pictures import jpeg, noise
from tests.serving import Serve, short_folder, wait_for

pytestmark = pytest.mark.benchmark

CLASSES = tuple(f"class {number}" for number in range(80))
RECORD = ModelRecord(architecture="yolox-nano", classes=CLASSES, input_size_hw=(416, 416))
PICTURE = jpeg(cv2.resize(noise(64, 48), (640, 480), interpolation=cv2.INTER_CUBIC))
CLIENTS = (1, 4, 16)
REQUESTS = 200


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return create_model(RECORD.architecture, num_classes=len(CLASSES)).eval()


@pytest.fixture
def serve(detector: Detector, tmp_path: Path) -> Iterator[Serve]:
    """A running server with one model."""
    weights = tmp_path / "weights.pth"
    torch.save({"model": detector.state_dict()}, weights)
    with short_folder() as folder, Serve(folder / "home") as running:
        with weights.open("rb") as file:
            fields = {"name": "bench", "architecture": RECORD.architecture}
            answer = running.http.post("/models/import", files={"weights": file}, data=fields)
        assert answer.status_code == 202, answer.text
        job = answer.headers["Location"]
        wait_for(lambda: running.http.get(job).json()["status"] not in ("queued", "running"), 120)
        assert running.http.get(job).json()["status"] == "succeeded", running.http.get(job).text
        yield running


def test_detect_in_process(bench: Bench, detector: Detector, tmp_path: Path) -> None:
    """Milliseconds for one picture of 640 x 480, bytes to boxes, with YOLOX-nano at 416."""
    write_model(detector, RECORD, tmp_path)
    backends = [("onnxruntime", "cpu"), *(("eager", device) for device in DEVICES)]
    for backend, device in backends:
        predictor = Predictor.from_folder(tmp_path, backend=backend, device=torch.device(device))
        bench.measure(f"{backend} on {device}", lambda predictor=predictor: predictor.predict([PICTURE]))


def test_detect_over_http(bench: Bench, serve: Serve) -> None:
    """Milliseconds for the same picture through `/detect`, with several clients at once."""
    for clients in CLIENTS:
        post(serve, clients * 5, clients)
        started = time.perf_counter()
        times_ms = post(serve, REQUESTS, clients)
        seconds = time.perf_counter() - started
        bench.note(f"{clients} clients", times_ms, images_per_s=round(len(times_ms) / seconds, 1))


def post(serve: Serve, requests: int, clients: int) -> list[float]:
    """Send pictures from several clients, each with a connection of its own; return how long each took."""
    address = f"http://127.0.0.1:{serve.settings.port}/detect"

    def one_client(count: int) -> list[float]:
        times_ms = []
        with httpx2.Client(trust_env=False, timeout=60) as client:
            for _ in range(count):
                started = time.perf_counter()
                answer = client.post(address, content=PICTURE, headers={"Content-Type": "image/jpeg"})
                times_ms.append((time.perf_counter() - started) * 1000)
                assert answer.status_code == 200, answer.text
        return times_ms

    with ThreadPoolExecutor(clients) as pool:
        shares = pool.map(one_client, [requests // clients] * clients)
        return [each for share in shares for each in share]
