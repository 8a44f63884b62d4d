"""The health checks of the containers: healthy only when the process does its work."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from app import alive
from app.database.clock import database_now
from app.database.session import create_database_engine, create_sessions
from app.database.tables import Job, Worker, utc_now
from app.database.upgrade import upgrade_database
from app.detect.frames import FrameProtocol
from app.detect.wire import AskStatus, EngineStatus
from app.engine.holds import Holds
from app.engine.server import Connection
from app.jobs.states import JobKind, JobStatus, Queue
from app.settings import Settings
from app.supervisor import frozen
from app.supervisor.listeners import tcp_listener


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", port=9, heartbeat_s=10.0)


def note(settings: Settings, *, is_well: bool, finds: int = 0, is_silent: bool = True) -> None:
    frozen.note_check(
        settings, "engine", is_well=is_well, find=lambda: finds, is_silent=lambda pid: is_silent
    )


def notes(settings: Settings) -> Path:
    return settings.home_path / "run" / f"engine@{platform.node()}.checks"


def see_worker(settings: Settings, *, ago_s: float, hostname: str, lease_s: float | None = None) -> None:
    upgrade_database(settings)
    engine = create_database_engine(settings)
    seen_at = utc_now() - timedelta(seconds=ago_s)
    with create_sessions(engine)() as session:
        session.add(Worker(name="w", queue="cpu", hostname=hostname, pid=1, seen_at=seen_at))
        if lease_s is not None:
            job = Job(kind=JobKind.TRAIN, queue=Queue.CPU, status=JobStatus.RUNNING, lease_owner="w")
            job.lease_until = database_now() + lease_s
            session.add(job)
        session.commit()
    engine.dispose()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_api_must_answer_well(status: int, healthy: bool) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.handle_request).start()
        assert alive.api_answers(Settings(port=server.server_port)) is healthy


def test_an_api_that_does_not_listen_is_not_healthy(settings: Settings) -> None:
    assert not alive.api_answers(settings)


class Pipeline:
    """Answers what a health check asks."""

    async def status(self, request: AskStatus) -> EngineStatus:
        return EngineStatus(request.id, 1, "CPU", "onnxruntime", (), 0, 0, 0)


def test_the_engine_must_answer(settings: Settings) -> None:
    def welcome() -> FrameProtocol:
        pipeline: Any = Pipeline()
        holds = Holds(lambda models, expected: None)
        return Connection(pipeline, holds, max_image_bytes=1000, when_over=lambda _: None).protocol

    async def ask() -> bool:
        loop = asyncio.get_running_loop()
        async with await loop.create_unix_server(welcome, settings.engine_socket):
            return await asyncio.to_thread(alive.engine_answers, settings)

    settings.engine_socket.parent.mkdir(parents=True)
    assert asyncio.run(ask())


LISTENS = """
import signal, socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
signal.signal(signal.SIGUSR1, lambda *_: print("stacks", flush=True))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def listener(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Something that listens where the engine would."""
    settings.engine_socket.parent.mkdir(parents=True)
    command = [sys.executable, "-c", LISTENS, str(settings.engine_socket)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_an_engine_that_falls_silent_is_ended_by_its_checks(
    settings: Settings, listener: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    well = [False] * 5 + [True] + [False] * 2 + [True] + [False] * 3
    monkeypatch.setattr(alive, "get_settings", lambda: settings)
    asked = replace(alive.CHECKS["engine"], is_well=lambda settings: well.pop(0))
    monkeypatch.setitem(alive.CHECKS, "engine", asked)
    while len(well) > 1:
        alive.main(["engine", "--end-frozen"])
    assert listener.poll() is None, "it was starting, then late, and three times in a row makes it frozen"
    assert alive.main(["engine", "--end-frozen"]) == 1
    assert listener.wait(20) == -signal.SIGKILL
    assert listener.stdout is not None
    assert listener.stdout.readline() == "stacks\n"


def test_what_is_not_the_fault_of_a_process_begins_the_row_anew(
    settings: Settings, listener: subprocess.Popen[str]
) -> None:
    note(settings, is_well=True, finds=listener.pid)
    for is_silent in (True, True, False, True, True):
        note(settings, is_well=False, is_silent=is_silent)
    assert listener.poll() is None
    note(settings, is_well=False)
    assert listener.wait(20) == -signal.SIGKILL


def test_another_process_with_the_number_of_a_former_engine_is_let_alone(
    settings: Settings, listener: subprocess.Popen[str]
) -> None:
    note(settings, is_well=True, finds=listener.pid)
    pid, started, _ = notes(settings).read_text().split()
    assert int(pid) == listener.pid
    notes(settings).write_text(f"{pid} {int(started) - 1} 2")
    note(settings, is_well=False)
    notes(settings).write_text(f"{pid} {started}")
    note(settings, is_well=False)
    notes(settings).unlink()
    note(settings, is_well=False)
    assert listener.poll() is None


def test_an_engine_in_another_container_is_let_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled: list[int] = []
    monkeypatch.setattr(frozen, "end_hung", signalled.append)
    note(settings, is_well=True, finds=0)  # the kernel does not tell who listens there, as if nobody did
    for _ in range(frozen.MOST_SILENT):
        note(settings, is_well=False)
    assert signalled == []


def test_notes_of_containers_that_are_gone_go(settings: Settings) -> None:
    note(settings, is_well=True, finds=1)
    old, new = (notes(settings).with_name(f"api@{name}.checks") for name in ("gone", "here"))
    for path in (old, new):
        path.touch()
    os.utime(old, times=(0, 0))
    note(settings, is_well=True, finds=1)
    assert {path.name for path in notes(settings).parent.iterdir()} == {notes(settings).name, new.name}


def test_a_check_needs_no_disk_to_be_passed(settings: Settings) -> None:
    settings.home_path.mkdir(parents=True)
    (settings.home_path / "run").touch()
    note(settings, is_well=True, finds=1)
    note(settings, is_well=False)


def test_an_api_that_listens_and_does_not_answer_is_silent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        frozen_api = settings.model_copy(update={"port": listening.getsockname()[1]})
        assert tcp_listener(frozen_api.port) == os.getpid()
        assert alive.api_is_silent(frozen_api, os.getpid())
        assert not alive.api_is_silent(frozen_api, 1), "another one has taken its place"
    assert not alive.api_is_silent(frozen_api, os.getpid()), "it stops, or only starts"


def test_an_api_that_answers_badly_is_not_silent() -> None:
    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        Thread(target=server.handle_request).start()
        assert not alive.api_is_silent(Settings(port=server.server_port), os.getpid())


@pytest.mark.parametrize(
    ("ago_s", "lease_s", "silent"),
    [(5, None, False), (31, None, True), (31, 20, False), (31, -1, True)],
    ids=["seen", "unseen", "keeps a job", "has lost its job"],
)
def test_a_worker_that_writes_nothing_is_silent_unless_it_keeps_a_job(
    settings: Settings, ago_s: float, lease_s: float | None, silent: bool
) -> None:
    see_worker(settings, ago_s=ago_s, hostname=platform.node(), lease_s=lease_s)
    assert alive.worker_process(settings) == 1
    assert alive.worker_is_silent(settings, 1) is silent
    assert not alive.worker_is_silent(settings, 2)


def test_a_worker_that_cannot_reach_the_database_is_not_silent(settings: Settings) -> None:
    assert alive.worker_process(settings) == 0
    assert not alive.worker_is_silent(settings, 1)


def test_an_engine_that_is_not_there_is_not_healthy(settings: Settings) -> None:
    assert not alive.engine_answers(settings)


@pytest.mark.parametrize(
    ("ago_s", "hostname", "healthy"),
    [(5, platform.node(), True), (31, platform.node(), False), (5, "another-host", False)],
)
def test_a_worker_of_this_host_must_have_been_seen_lately(
    settings: Settings, ago_s: float, hostname: str, healthy: bool
) -> None:
    see_worker(settings, ago_s=ago_s, hostname=hostname)
    assert alive.worker_was_seen(settings) is healthy


def test_one_worker_among_others_is_known_by_its_process(settings: Settings) -> None:
    see_worker(settings, ago_s=5, hostname=platform.node())
    assert alive.worker_was_seen(settings, 1)
    assert not alive.worker_was_seen(settings, 2)


def test_a_worker_without_a_database_is_not_healthy(settings: Settings) -> None:
    assert not alive.worker_was_seen(settings)


def test_the_exit_status_is_what_a_container_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, is_well in (("api", True), ("engine", False)):
        check = alive.Check(
            lambda settings, well=is_well: well, lambda settings: 0, lambda settings, pid: True
        )
        monkeypatch.setitem(alive.CHECKS, name, check)
    asked = [["api"], ["engine"], ["broker"], [], ["api", "--what"], ["engine", "--end-frozen", "--what"]]
    assert [alive.main(arguments) for arguments in asked] == [0, 1, 2, 2, 2, 2]
