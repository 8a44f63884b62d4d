"""`/detect` of two real processes while its model is exchanged, clients hang up and others send nonsense."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from app.database.upgrade import upgrade_database
from app.settings import Settings
from tests.pictures import jpeg, noise
from tests.published import add_model
from tests.serving import EngineProcess, accepts_tcp, free_port, short_folder, wait_for

PICTURE = jpeg(noise(150, 100))
RAW = {"Content-Type": "image/jpeg"}
NUM_SWAPS = 50
RESET = struct.pack("ii", 1, 0)
"""A linger of no time: closing sends RST."""


class Service:
    """An API process and an engine with two models that see different things."""

    def __init__(self, settings: Settings) -> None:
        self.port = settings.port
        self.seen = {
            model_id: self.ask(f"?score_threshold=0.01&model={model_id}") for model_id in ("m1", "m2")
        }

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False)

    def ask(self, query: str) -> Any:
        with self.client() as client:
            answer = client.post(f"/detect{query}", content=PICTURE, headers=RAW)
            assert answer.status_code == 200, answer.text
            return answer.json()["images"]

    def name(self, client: httpx2.Client, model_id: str) -> None:
        answer = client.patch(f"/models/{model_id}", json={"alias": "production"})
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with short_folder() as folder:
        settings = Settings(home=folder, device="cpu", port=free_port(), _env_file=None)
        upgrade_database(settings)
        add_model(settings, "m1", alias="production")
        add_model(settings, "m2", seed=1)
        engine = EngineProcess(settings)
        given = {"HARRIER_HOME": folder, "HARRIER_PORT": settings.port}
        environment = {**os.environ, **{name: str(value) for name, value in given.items()}}
        with (folder / "api.log").open("wb") as log:
            server = subprocess.Popen([sys.executable, "-m", "app.server"], env=environment, stderr=log)
        wait_for(lambda: accepts_tcp(settings.port), 60)
        yield Service(settings)
        server.terminate()
        server.wait(40)
        log_text = (folder / "api.log").read_text()
        assert engine.stop() == 0
        assert "Traceback" not in log_text
        assert "internal_error" not in log_text


class Clients:
    """Clients who ask until they are told to stop, and what each was answered."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(8)
        self._running = [self._pool.submit(self._ask) for _ in range(3)]

    def also(self, misbehave: Any) -> None:
        """Let somebody else do something over and over beside them."""

        def repeat() -> list[Any]:
            while not self._stop.is_set():
                misbehave()
            return []

        self._running.append(self._pool.submit(repeat))

    def stop(self) -> list[Any]:
        self._stop.set()
        answers = [answer for running in self._running for answer in running.result(60)]
        self._pool.shutdown()
        return answers

    def _ask(self) -> list[Any]:
        answers = []
        with self._service.client() as client:
            while not self._stop.is_set():
                answers.append(client.post("/detect?score_threshold=0.01", content=PICTURE, headers=RAW))
        return answers


def check(service: Service, answers: list[Any]) -> None:
    """Every one is an answer, of the model that it names."""
    assert answers
    assert {answer.status_code for answer in answers} == {200}
    for answer in answers:
        body = answer.json()
        assert body["images"] == service.seen[body["model"]]


def test_every_answer_is_of_the_model_it_names_while_the_alias_moves(service: Service) -> None:
    assert service.seen["m1"] != service.seen["m2"]
    clients = Clients(service)
    with service.client() as client:
        for number in range(NUM_SWAPS):
            model_id = ("m2", "m1")[number % 2]
            service.name(client, model_id)
            answer = client.post("/detect", content=PICTURE, headers=RAW)
            assert answer.json()["model"] == model_id, "a moved alias counts at once"
    check(service, clients.stop())


def test_clients_that_hang_up_and_clients_that_send_nonsense_disturb_nobody(service: Service) -> None:
    head = (
        b"POST /detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    )
    request = head % len(PICTURE) + PICTURE

    def hang_up() -> None:
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as line:
            line.sendall(request)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def send_nonsense() -> None:
        with service.client() as client:
            damaged = client.post("/detect", content=PICTURE[: len(PICTURE) // 2], headers=RAW)
        assert damaged.status_code in (200, 422), damaged.text

    clients = Clients(service)
    for _ in range(4):
        clients.also(hang_up)
    clients.also(send_nonsense)
    with service.client() as client:
        for _ in range(60):
            assert client.post("/detect", content=PICTURE, headers=RAW).status_code == 200
    check(service, clients.stop())
    wait_for(lambda: "harrier_detect_held_bytes 0.0" in _metrics(service), 20)


def _metrics(service: Service) -> str:
    with service.client() as client:
        return client.get("/metrics").text
