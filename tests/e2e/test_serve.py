"""`harrier serve` on a real port: starts, refuses clearly, survives its parts, leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.pictures import jpeg, quadrants
from tests.published import add_model
from tests.serving import Serve, short_folder, taken_port, wait_for

PICTURE = jpeg(quadrants(120, 80))
RAW = {"Content-Type": "image/jpeg"}


@pytest.fixture
def home() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "home"


def command(serve: Serve, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        env=serve.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_life_of_a_server(home: Path) -> None:
    with Serve(home) as serve:
        assert f"http://127.0.0.1:{serve.settings.port}" in serve.printed
        a_second_server_is_refused(serve)
        everything_is_there(serve)
        add_model(serve.settings)
        it_detects(serve)
        a_killed_engine_is_answered_with_503_and_comes_back(serve)
        a_killed_broker_comes_back(serve)
        assert serve.stop(signal.SIGINT) == 0
        assert serve.processes() == []
        assert "Stopped." in serve.printed


def a_second_server_is_refused(serve: Serve) -> None:
    second = command(serve, "serve")
    assert second.returncode == 1
    assert f"already runs with the home {serve.settings.home_path}" in second.stderr
    assert f"process {serve.process.pid}" in second.stderr


def everything_is_there(serve: Serve) -> None:
    assert serve.http.get("/readyz").status_code == 200
    for words in (["app.server"], ["app.engine"], ["worker", "cpu"], ["worker", "gpu"]):
        assert serve.pid_of(*words), words


def it_detects(serve: Serve) -> None:
    answer = serve.http.post("/detect", content=PICTURE, headers=RAW, params={"score_threshold": 0.01})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "m1"
    assert answer.json()["images"][0]["detections"]


def a_killed_engine_is_answered_with_503_and_comes_back(serve: Serve) -> None:
    engine = serve.pid_of("app.engine")
    assert engine
    subprocess.run(["kill", "-9", str(engine)], check=True)
    seen: list[httpx2.Response] = []

    def answers() -> bool:
        seen.append(serve.http.post("/detect", content=PICTURE, headers=RAW))
        return seen[-1].is_success

    wait_for(answers, 30)
    refused = [answer for answer in seen if not answer.is_success]
    assert {answer.status_code for answer in refused} <= {503}
    assert all(answer.json()["code"] == "engine_unavailable" for answer in refused)
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert serve.pid_of("app.engine") != engine


def a_killed_broker_comes_back(serve: Serve) -> None:
    broker = next(process for process in serve.processes() if process.name() == "valkey-server")
    broker.kill()
    wait_for(lambda: any(process.name() == "valkey-server" for process in serve.processes()), 10)
    wait_for(lambda: serve.http.get("/readyz").is_success, 30)


@pytest.mark.parametrize("victim", ["harrier serve", "supervisord"])
def test_nothing_outlives_a_killed_supervisor(home: Path, victim: str) -> None:
    with Serve(home) as serve:
        pid = serve.process.pid if victim == "harrier serve" else serve.pid_of("supervisor.supervisord")
        assert pid
        assert len(serve.processes()) >= 6
        subprocess.run(["kill", "-9", str(pid)], check=True)
        wait_for(lambda: serve.processes() == [], 10)
        assert serve.process.wait(5) != 0


def test_a_taken_port_is_named_before_anything_starts(home: Path) -> None:
    with taken_port() as port:
        serve = Serve(home)
        serve.environment["HARRIER_PORT"] = str(port)
        refused = command(serve, "serve")
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in refused.stderr
    assert f"HARRIER_PORT={port + 1}" in refused.stderr
    assert serve.processes() == []
    assert not (home / "harrier.sqlite3").exists()


def test_it_refuses_to_serve_others_without_a_key(home: Path) -> None:
    serve = Serve(home)
    serve.environment["HARRIER_HOST"] = "0.0.0.0"
    refused = command(serve, "serve")
    assert refused.returncode == 1
    assert "harrier keys create" in refused.stderr
    created = command(serve, "keys", "create", "me")
    assert created.returncode == 0, created.stderr
    assert created.stdout.startswith("hr_")
