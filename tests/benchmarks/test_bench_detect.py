"""How fast pictures are looked at: in one process, and through `/detect` of a running server."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
import torch

from detection.deploy.package import write_model
from detection.inference.predictor import Predictor
from detection.models.detector import Detector
from tests.benchmarks.conftest import DEVICES, PICTURE, RECORD, Bench
from tests.serving import Serve

pytestmark = pytest.mark.benchmark

CLIENTS = (1, 4, 16)
REQUESTS = 200


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
