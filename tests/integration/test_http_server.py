"""The HTTP server as a process: patient with nobody for ever, and in order when it is told to stop."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from app.database.upgrade import upgrade_database
from app.server import RequestLimit
from app.settings import Settings
from tests.serving import free_port, short_folder, wait_for

PATIENCE_S = 1.0


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A running API without engine, broker and workers."""
    with short_folder() as folder:
        upgrade_database(Settings(home=folder))
        port = free_port()
        given = {"HARRIER_HOME": folder, "HARRIER_PORT": port, "HARRIER_BODY_TIMEOUT_S": PATIENCE_S}
        environment = {**os.environ, **{name: str(value) for name, value in given.items()}}
        with (folder / "api.log").open("wb") as log:
            server = subprocess.Popen([sys.executable, "-m", "app.server"], env=environment, stderr=log)
        wait_for(lambda: answers(port), 60)
        yield port
        server.terminate()
        assert server.wait(20) in (0, -15)
        assert "Traceback" not in (folder / "api.log").read_text()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def exchange(port: int, sent: bytes) -> bytes:
    """Send bytes, then be silent and return what comes until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(sent)
        received = b""
        while piece := line.recv(65536):
            received += piece
        return received


@pytest.mark.parametrize(
    "sent", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "]
)
def test_a_client_that_never_ends_its_header_is_hung_up_on(port: int, sent: bytes) -> None:
    assert exchange(port, sent) == b""


def test_the_header_of_the_second_request_on_a_connection_has_the_same_limit(port: int) -> None:
    first = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    received = exchange(port, first + b"GET /livez HTTP/1.1\r\nHo")
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 200")


def test_a_client_that_never_ends_its_body_gets_408(port: int) -> None:
    head = (
        b"POST /detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: 100\r\n\r\n"
    )
    received = exchange(port, head + b"half")
    assert received.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in received


def test_a_header_may_not_be_endless(port: int) -> None:
    received = exchange(port, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 40_000)
    assert received.startswith(b"HTTP/1.1 4")


def test_the_server_does_not_name_itself(port: int) -> None:
    answer = httpx2.get(f"http://127.0.0.1:{port}/livez", trust_env=False)
    assert answer.status_code == 200
    assert "server" not in answer.headers


def test_a_missing_engine_is_told_at_once(port: int) -> None:
    answer = httpx2.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
    assert answer.status_code == 503


def test_one_request_more_than_the_limit_is_told_to_come_back() -> None:
    async def story() -> None:
        gate = asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})

        async def ask() -> tuple[int, dict[bytes, bytes]]:
            sent: list[Message] = []

            async def send(message: Message) -> None:
                sent.append(message)

            async def receive() -> Message:
                return {"type": "http.request", "body": b"", "more_body": False}

            await limited({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)
            return sent[0]["status"], dict(sent[0]["headers"])

        limited = RequestLimit(slow, 2)
        running = [asyncio.create_task(ask()) for _ in range(2)]
        await asyncio.sleep(0)
        status, headers = await ask()
        assert status == 503
        assert headers[b"retry-after"] == b"1"
        gate.set()
        assert [status for status, _ in await asyncio.gather(*running)] == [204, 204]
        assert (await ask())[0] == 204

    asyncio.run(story())
