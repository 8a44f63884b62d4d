"""What the engine does in bad times: killed, and beside pictures that take long to decode."""

from __future__ import annotations

import os
import signal
import threading
import time

import httpx2
import numpy as np
import pytest

from tests.benchmarks.conftest import PICTURE, Bench
from tests.pictures import png
from tests.serving import Serve, wait_for

pytestmark = pytest.mark.benchmark

KILLS = 10
PAUSE_S = 0.02
LONGEST_S = 60.0
LARGE_SENDERS = (0, 2, 16)
BESIDE_S = 10.0


def detect(serve: Serve, picture: bytes = PICTURE) -> httpx2.Response:
    return serve.http.post("/detect", content=picture, headers={"Content-Type": "image/jpeg"})


def test_engine_killed(bench: Bench, serve: Serve) -> None:
    """Milliseconds from SIGKILL of the engine to the next answer; in between every answer is 503."""
    assert detect(serve).status_code == 200
    away_ms = []
    for _ in range(KILLS):
        pid = wait_for(lambda: serve.pid_of("app.engine"), LONGEST_S)
        os.kill(pid, signal.SIGKILL)
        started = time.perf_counter()
        while (answer := detect(serve)).status_code != 200:
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) > 0
            assert time.perf_counter() - started < LONGEST_S
            time.sleep(PAUSE_S)
        away_ms.append((time.perf_counter() - started) * 1000)
    bench.note("engine killed", away_ms, all_ms=[round(each) for each in sorted(away_ms)])


def test_small_pictures_beside_large_ones(bench: Bench, serve: Serve) -> None:
    """Milliseconds for a picture of 640 x 480 while others send black ones of 100 megapixels."""
    large = png(np.zeros((10_000, 10_000, 3), np.uint8))
    assert detect(serve).status_code == 200
    for senders in LARGE_SENDERS:
        enough = threading.Event()
        crowd = [threading.Thread(target=send_until, args=(serve, large, enough)) for _ in range(senders)]
        for sender in crowd:
            sender.start()
        bench.note(f"beside {senders} large ones", times_of_small_ones(serve))
        enough.set()
        for sender in crowd:
            sender.join()


def times_of_small_ones(serve: Serve) -> list[float]:
    times_ms, until = [], time.perf_counter() + BESIDE_S
    while time.perf_counter() < until:
        started = time.perf_counter()
        assert detect(serve).status_code == 200
        times_ms.append((time.perf_counter() - started) * 1000)
        time.sleep(PAUSE_S)
    return times_ms


def send_until(serve: Serve, picture: bytes, enough: threading.Event) -> None:
    address = f"http://127.0.0.1:{serve.settings.port}/detect"
    with httpx2.Client(trust_env=False, timeout=LONGEST_S) as client:
        while not enough.is_set():
            answer = client.post(address, content=picture, headers={"Content-Type": "image/png"})
            assert answer.status_code in (200, 503), answer.text
