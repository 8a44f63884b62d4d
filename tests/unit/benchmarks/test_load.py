"""The load generator: answers in pieces, and what it counts of good, damaged and reset requests."""

from __future__ import annotations

import json
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.load.answers import AnswerReader, UnreadableAnswerError
from tests.benchmarks.load.generator import Load
from tests.benchmarks.load.plan import Plan, model_of

ROOT = Path(__file__).resolve().parents[3]
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"model":"a"}'
BUSY = b"HTTP/1.1 503 Busy\r\nretry-after: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
GOOD, DAMAGED = b"a picture", b"rubbish"


class Handler(socketserver.StreamRequestHandler):
    """Answers 200 to a good picture, 422 to another one, and counts connections that were reset."""

    def handle(self) -> None:
        try:
            while self.rfile.readline():
                length = 0
                while line := self.rfile.readline().strip():
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                picture = self.rfile.read(length)
                self.wfile.write(OK if picture == GOOD else BUSY.replace(b"503 Busy", b"422 Bad"))
        except ConnectionResetError:
            self.server.resets += 1  # type: ignore[attr-defined]


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    resets = 0


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    for name, content in (("good", GOOD), ("damaged", DAMAGED)):
        (tmp_path / name).write_bytes(content)
    return str(tmp_path / "good"), str(tmp_path / "damaged")


def test_an_answer_is_whole_whatever_its_pieces() -> None:
    for whole, status, body in ((OK, 200, b'{"model":"a"}'), (BUSY, 503, b"no")):
        for size in (1, 7, len(whole)):
            reader = AnswerReader()
            pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
            *early, answer = [reader.feed(piece) for piece in pieces]
            assert not any(early)
            assert answer is not None
            assert (answer.status, answer.body) == (status, body)


def test_what_a_refusal_says_is_kept() -> None:
    answer = AnswerReader().feed(BUSY)
    assert answer is not None
    assert answer.retry_after == "2"
    assert not answer.closes


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0\r\nContent-Length: 0\r\n\r\n"])
def test_bytes_without_a_length_or_a_status_are_no_answer(head: bytes) -> None:
    with pytest.raises(UnreadableAnswerError):
        AnswerReader().feed(head)


@pytest.mark.parametrize(
    ("body", "named"),
    [(b'{"model":"a","images":[]}', "a"), (b"{}", "0 models"), (b'{"model":"a","model":"b"}', "2 models")],
)
def test_an_answer_names_one_model(body: bytes, named: str) -> None:
    assert model_of(body) == named


def plan_for(server: Server, pictures: list[str], **more: Any) -> Plan:
    port = server.server_address[1]
    return Plan(port=port, path="/detect", pictures=pictures, **{"seconds": 0.2, "warm_up_s": 0.0, **more})


def test_closed_loop(server: Server, files: tuple[str, str]) -> None:
    counted = Load(plan_for(server, [files[0]], clients=3, name_models=True, keep_bodies=1)).run()
    good = counted["good"]
    assert len(good["times_ms"]) == good["statuses"]["200"] == good["models"]["a"] > 3
    assert good["bodies"] == ['{"model":"a"}']
    assert not good["failures"]
    assert counted["client_cpu_ms"] > 0


def test_a_number_of_requests_ends_it(server: Server, files: tuple[str, str]) -> None:
    counted = Load(plan_for(server, [files[0]], clients=2, requests=10, seconds=30.0)).run()
    assert 10 <= counted["good"]["statuses"]["200"] <= 11
    assert counted["seconds"] < 20


def test_open_loop_sends_at_its_rate(server: Server, files: tuple[str, str]) -> None:
    counted = Load(plan_for(server, [files[0]], clients=50, rate=200.0, seconds=0.5)).run()
    assert counted["good"]["statuses"]["200"] + counted["unsent"] == 100
    assert len(counted["late_ms"]) == 100 - counted["unsent"]


def test_what_is_never_answered_is_counted(monkeypatch: pytest.MonkeyPatch, files: tuple[str, str]) -> None:
    monkeypatch.setattr("tests.benchmarks.load.generator.DRAIN_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        plan = Plan(
            port=port, path="/", pictures=[files[0]], clients=9, rate=50.0, seconds=0.1, warm_up_s=0.0
        )
        counted = Load(plan).run()
    assert counted["good"]["failures"] == {"no answer in time": 5}


def test_misbehaving_clients_are_counted_apart(server: Server, files: tuple[str, str]) -> None:
    plan = plan_for(server, [files[0]], clients=2, damaged=files[1], resetting=2, reset_after_s=0.005)
    counted = Load(plan).run()
    assert set(counted["good"]["statuses"]) == {"200"}
    assert set(counted["damaged"]["statuses"]) == {"422"}
    assert counted["damaged"]["retry_after"]["2"] > 0
    assert counted["resetting"]["failures"]["reset"] > 2


def test_nobody_listens(files: tuple[str, str]) -> None:
    counted = Load(Plan(port=9, path="/", pictures=[files[0]], seconds=0.1, warm_up_s=0.0)).run()
    assert counted["good"]["failures"]["ConnectionRefusedError"] > 1
    assert not counted["good"]["statuses"]


def test_as_a_program(server: Server, files: tuple[str, str]) -> None:
    plan = {"port": server.server_address[1], "path": "/", "pictures": [files[0]], "requests": 3}
    command = [sys.executable, "-S", "-m", "tests.benchmarks.load"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        input=json.dumps({**plan, "warm_up_s": 0}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["good"]["statuses"] == {"200": 3}
