"""The HTTP server as a process: patient with nobody for ever, and in order when it is told to stop."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import psutil
import pytest
import uvicorn
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from app.api.short_bodies import WHOLE
from app.database.upgrade import upgrade_database
from app.server import RequestLimit, limited, patient_protocol
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


@pytest.mark.parametrize("size", [1_000_000, 12_000_000])
def test_who_was_told_to_go_on_hears_why_the_upload_is_refused(port: int, size: int) -> None:
    """The body is still on its way when the answer is known: the name of its field is wrong."""
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pth"\r\n\r\n'
    body = part + b"w" * size + b"\r\n--x--\r\n"
    header = (
        b"POST /models/import HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(header)
        assert line.recv(65536).startswith(b"HTTP/1.1 100")
        line.sendall(body)
        received = b""
        while not received.endswith(b"}"):
            received += line.recv(65536)
    assert received.startswith(b"HTTP/1.1 422")
    assert b"the file goes into" in received


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


def test_a_client_that_never_reads_its_answers_is_hung_up_on(port: int) -> None:
    """The kernel holds a few megabytes for it; what is more than that would wait here."""
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", port))
        line.sendall(asked * 60)
        mine = line.getsockname()[1]
        assert is_served(port, mine)
        wait_for(lambda: not is_served(port, mine), 30)


def is_served(port: int, client_port: int) -> bool:
    return any(
        each.laddr.port == port and each.raddr and each.raddr.port == client_port and each.pid is not None
        for each in psutil.net_connections("tcp4")
    )


class Asked:
    """What one request to an ASGI application was answered."""

    def __init__(
        self,
        app: ASGIApp,
        path: str = "/",
        *,
        headers: list[tuple[bytes, bytes]] | None = None,
        **more: bytes,
    ) -> None:
        self.sent: list[Message] = []
        scope = {"type": "http", "method": "GET", "path": path, "headers": headers or [], **more}
        self.done = asyncio.ensure_future(app(scope, self._receive, self._send))

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> Headers:
        return Headers(raw=self.sent[0]["headers"])

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def _receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}


def endless(kind: bytes, gate: asyncio.Event) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await gate.wait()

    return app


def test_open_streams_leave_room_for_everybody_else() -> None:
    async def story() -> None:
        gate = asyncio.Event()
        app = limited(endless(b"text/event-stream; charset=utf-8", gate), 2, Settings(_env_file=None))
        streams = [Asked(app) for _ in range(10)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert [each.status for each in streams[:2]] == [200, 200]
        later = Asked(app)
        await asyncio.sleep(0)
        assert later.status == 200
        gate.set()
        await asyncio.gather(later.done, *(each.done for each in streams))
        again = Asked(app)
        await again.done
        assert again.status == 200

    asyncio.run(story())


def test_many_slow_bodies_leave_room_for_everybody_else() -> None:
    async def story() -> None:
        gate = asyncio.Event()
        app = limited(endless(b"text/plain", gate), 4, Settings(_env_file=None))
        announced = [(b"content-length", b"9")]
        slow = [Asked(app, headers=announced) for _ in range(3)]
        others = [Asked(app, "/jobs"), Asked(app, headers=announced, **{WHOLE: b"a picture"})]
        one_more = Asked(app, "/jobs")
        await asyncio.gather(slow[2].done, one_more.done)
        assert [each.status for each in (*slow, *others, one_more)] == [200, 200, 503, 200, 200, 503]
        gate.set()
        await asyncio.gather(*(each.done for each in (*slow, *others)))
        again = Asked(app, headers=announced)
        await again.done
        assert again.status == 200

    asyncio.run(story())


def test_health_is_told_also_when_there_is_too_much_of_everything_else() -> None:
    async def story() -> None:
        gate = asyncio.Event()
        app = limited(endless(b"text/plain", gate), 2, Settings(root_path="/vision", _env_file=None))
        downloads = [Asked(app) for _ in range(2)]
        await asyncio.sleep(0)
        refused = Asked(app, "/jobs")
        await refused.done
        assert refused.status == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["x-request-id"]
        assert refused.headers["x-content-type-options"] == "nosniff"
        gate.set()
        for path in ("/livez", "/readyz", "/vision/livez"):
            healthy = Asked(app, path)
            await healthy.done
            assert healthy.status == 200
        await asyncio.gather(*(each.done for each in downloads))

    asyncio.run(story())


def test_one_connection_more_than_the_limit_is_told_to_come_back() -> None:
    async def ok(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("fine")(scope, receive, send)

    async def ask(port: int, path: str) -> tuple[bytes, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        return await reader.readuntil(b"\r\n\r\n"), writer

    async def story() -> None:
        config = uvicorn.Config(ok, lifespan="off", ws="none", log_config=None)
        config.load()
        bounded = patient_protocol(5, 1, limited(ok, 0, Settings(_env_file=None)))
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: bounded(config, state, {}), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        first, second, health = [await ask(port, path) for path in ("/", "/", "/livez")]
        assert first[0].startswith(b"HTTP/1.1 200")
        assert second[0].startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in second[0]
        assert b"application/problem+json" in second[0]
        assert health[0].startswith(b"HTTP/1.1 200")
        for _, writer in (first, second, health):
            writer.close()
        server.close()
        await server.wait_closed()

    asyncio.run(story())


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
