"""The API as a process, and clients that speak no HTTP, leave in the middle, or see the server killed."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.database.upgrade import upgrade_database
from app.settings import Settings
from tests.integration.api.conftest import small_zip
from tests.services import wait_until
from tests.serving import free_port, short_folder

FORM = b"Content-Type: multipart/form-data; boundary=x\r\n"
FILE = b'--x\r\nContent-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\n'
END = b"\r\n--x--\r\n"


class Server:
    """`python -m app.server` in a home of its own; may be killed and started again."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.log = home / "api.log"
        given = {"HOME": home, "PORT": self.port, "BODY_TIMEOUT_S": 5.0, "MIN_FREE_BYTES": 1}
        self._environment = {**os.environ, **{f"HARRIER_{name}": str(value) for name, value in given.items()}}
        upgrade_database(Settings(home=home, _env_file=None))
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.server"], env=self._environment, stderr=log
            )
        wait_until(self._answers, timeout_s=120)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)

    def get(self, path: str) -> Any:
        return httpx2.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False).json()

    def upload(self, key: str) -> httpx2.Response:
        return httpx2.post(
            f"http://127.0.0.1:{self.port}/datasets",
            files={"archive": ("a.zip", small_zip())},
            headers={"Idempotency-Key": key},
            trust_env=False,
        )

    @contextmanager
    def line(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as line:
            yield line

    def uploads(self) -> list[Path]:
        return [path for path in (self.home / "scratch").rglob("*") if path.is_file()]

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with short_folder() as home:
        server = Server(home)
        yield server
        server.stop()
        assert "Traceback" not in server.log.read_text()
        assert "internal_error" not in server.log.read_text()


def request(path: bytes, headers: bytes = b"", body: bytes = b"", *, method: bytes = b"POST") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + headers + b"\r\n" + body


def answer_of(line: socket.socket) -> bytes:
    """Return what comes until the server hangs up or is silent after its answer."""
    received = b""
    try:
        while piece := line.recv(65536):
            received += piece
    except (ConnectionError, TimeoutError):
        return received
    return received


def exchange(server: Server, *sent: bytes) -> bytes:
    with server.line() as line:
        try:
            for piece in sent:
                line.sendall(piece)
        except ConnectionError:
            pass  # it was refused before all was said; the answer is there
        return answer_of(line)


def trickle(line: socket.socket, *, for_s: float) -> None:
    """Send a byte now and then, for as long as the other side takes it."""
    give_up_at = time.monotonic() + for_s
    while time.monotonic() < give_up_at:
        line.sendall(b"x")
        time.sleep(0.1)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n",
        request(b"/train", b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"),
        request(b"/train", b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        request(b"/train", b"Transfer-Encoding: chunked\r\n", b"3\r\nabcXX0\r\n\r\n"),
        request(b"/train", b"Content-Length: -3\r\n", b"abc"),
        request(b"/train", b"Content-Length: +5\r\n", b"abcde"),
        b"GET /jobs HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /jobs HTTP/1.1\r\nHost: a/b?c\r\n\r\n",
        b"GET /jobs HTTP/1.0\r\n\r\n",
    ],
    ids=[
        "tls",
        "two lengths",
        "two framings",
        "chunk end",
        "negative",
        "plus",
        "two hosts",
        "odd host",
        "no host",
    ],
)
def test_what_is_no_http_is_a_problem_and_the_end(server: Server, sent: bytes) -> None:
    received = exchange(server, sent)
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"application/problem+json" in received
    assert b'"request_id"' in received


def test_a_million_tiny_chunks_are_not_read(server: Server) -> None:
    chunks = b"1\r\nx\r\n" * 200_000
    received = exchange(server, request(b"/datasets", FORM + b"Transfer-Encoding: chunked\r\n"), chunks)
    assert received[:12] in (b"", b"HTTP/1.1 400")
    assert server.get("/livez") == {"status": "alive"}


def test_a_body_announced_too_large_is_refused_and_the_line_closed(server: Server) -> None:
    received = exchange(server, request(b"/train", b"Content-Length: 99999999999\r\n"))
    assert received.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in received.lower()


@pytest.mark.parametrize("rude", [False, True])
@pytest.mark.parametrize("num_bytes", [10, 200, 3_000_000])
def test_a_client_that_leaves_in_the_middle_leaves_nothing(
    server: Server, num_bytes: int, rude: bool
) -> None:
    body = (FILE + b"PK\x03\x04" + b"z" * 4_000_000)[:num_bytes]
    with server.line() as line:
        line.sendall(request(b"/datasets", FORM + b"Content-Length: 9000000\r\n", body))
        if num_bytes > 1_000_000:
            wait_until(server.uploads, timeout_s=10)
        if rude:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: not server.uploads(), timeout_s=10)
    assert server.get("/datasets")["items"] == []


def test_who_trickles_after_the_answer_is_hung_up_on(server: Server) -> None:
    with server.line() as line:
        line.sendall(request(b"/datasets", b"Content-Type: text/plain\r\nContent-Length: 90000000\r\n"))
        with pytest.raises(ConnectionError):
            trickle(line, for_s=20)


def test_a_killed_server_has_taken_nothing_and_the_same_key_works_again(server: Server) -> None:
    key = b"Idempotency-Key: kill-1\r\n"
    body = FILE + b"PK\x03\x04" + b"z" * 3_000_000
    with server.line() as line:
        line.sendall(request(b"/datasets", FORM + key + b"Content-Length: 9000000\r\n", body))
        wait_until(server.uploads, timeout_s=10)
        assert server.upload("kill-1").status_code == 409
        server.stop(signal.SIGKILL)
    server.start()
    assert server.get("/datasets")["items"] == []
    first, second = server.upload("kill-1"), server.upload("kill-1")
    assert first.status_code == second.status_code == 202
    assert first.json() == second.json()
    for path in server.uploads():  # the janitor's work, which lives with the workers
        path.unlink()


def test_what_was_accepted_is_finished_and_watchers_are_sent_home(server: Server) -> None:
    content = small_zip()
    body = FILE + content + END
    with server.line() as line, server.line() as watcher:
        watcher.sendall(request(b"/events", method=b"GET"))
        seen = b""
        while b"retry" not in seen:
            seen += watcher.recv(65536)
        head = request(b"/datasets", FORM + b"Content-Length: %d\r\n" % len(body))
        line.sendall(head + body[:50])
        wait_until(lambda: server.get("/livez"), timeout_s=5)
        server.process.send_signal(signal.SIGTERM)
        assert answer_of(watcher).endswith(b"0\r\n\r\n")
        line.sendall(body[50:])
        assert answer_of(line).startswith(b"HTTP/1.1 202")
    assert server.process.wait(40) in (0, -signal.SIGTERM)
    server.start()
