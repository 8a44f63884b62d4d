"""`harrier serve` on a real port: starts, refuses clearly, survives its parts, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.pictures import jpeg, quadrants
from tests.published import add_model
from tests.services import QUICK
from tests.serving import Serve, short_folder, taken_port, wait_for
from tests.tiny_dataset import tiny_archive

PICTURE = jpeg(quadrants(120, 80))
RAW = {"Content-Type": "image/jpeg"}
ENDLESS = {
    "epochs": 2000,
    "batch_size": 2,
    "input_size": 64,
    "schedule": {"no_aug_epochs": 0},
    "augmentation": {"mosaic": 0.0, "multi_scale": False},
    "evaluation": {"every_epochs": 2000},
}
"""A training that is saved every other step, and measured when it is told to finish."""


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
    with Serve(home, **QUICK) as serve:
        assert f"http://127.0.0.1:{serve.settings.port}" in serve.printed
        a_second_server_is_refused(serve)
        everything_is_there(serve)
        add_model(serve.settings)
        it_detects(serve, "m1")
        job = a_training_begins(serve)
        a_killed_trainer_is_replaced(serve, job)
        a_killed_worker_is_replaced(serve, job)
        a_killed_engine_is_answered_with_503_and_comes_back(serve, job)
        a_killed_broker_comes_back(serve, job)
        it_detects(serve, "m1")
        the_training_ends_as_if_nothing_had_been(serve, job)
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


def it_detects(serve: Serve, model: str) -> None:
    parameters = {"model": model, "score_threshold": 0.001}
    answer = serve.http.post("/detect", content=PICTURE, headers=RAW, params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    assert answer.json()["images"][0]["detections"]


def a_training_begins(serve: Serve) -> str:
    """Start a training that ends only when it is told to; return the address of its job."""
    files = {"archive": ("tiny.zip", tiny_archive())}
    dataset = serve.http.post("/datasets", files=files, data={"name": "tiny"}).json()
    serve.succeeded(f"/jobs/{dataset['job_id']}")
    answer = serve.http.post("/train", json={"dataset_id": dataset["id"], **ENDLESS})
    assert answer.status_code == 202, answer.text
    job: str = answer.headers["Location"]
    got_on(serve, job)
    return job


def got_on(serve: Serve, job: str, *, after_attempt: int = 0) -> int:
    """Wait until an attempt later than this one has trained some steps; return which attempt it is."""

    def look() -> dict[str, Any]:
        found: dict[str, Any] = serve.http.get(job).json()
        assert found["status"] in ("queued", "running"), found["failure"]
        return found

    wait_for(lambda: look()["attempt"] > after_attempt and look()["stage"] == "training", 90)
    before = look()["progress"]["step"]
    wait_for(lambda: look()["progress"]["step"] >= before + 4, 90)
    return attempt_at(serve, job)


def attempt_at(serve: Serve, job: str) -> int:
    return int(serve.http.get(job).json()["attempt"])


def reasons(serve: Serve, job: str) -> str:
    return "\n".join(change["reason"] for change in serve.http.get(job).json()["transitions"])


def killed(serve: Serve, *words: str) -> int:
    """End the process whose command line holds these words as `kill -9` does; return its id."""
    pid = serve.pid_of(*words)
    assert pid, words
    os.kill(pid, signal.SIGKILL)
    return pid


def a_killed_trainer_is_replaced(serve: Serve, job: str) -> None:
    attempt = attempt_at(serve, job)
    trainer = killed(serve, "worker.process")
    assert got_on(serve, job, after_attempt=attempt) == attempt + 1
    assert serve.pid_of("worker.process") != trainer
    assert "want of memory" in reasons(serve, job)


def a_killed_worker_is_replaced(serve: Serve, job: str) -> None:
    attempt = attempt_at(serve, job)
    trainer, worker = serve.pid_of("worker.process"), killed(serve, "worker", "gpu")
    wait_for(lambda: serve.pid_of("worker.process") != trainer, 10)
    assert got_on(serve, job, after_attempt=attempt) == attempt + 1
    assert serve.pid_of("worker", "gpu") != worker
    assert f":{worker} was lost" in reasons(serve, job)


def a_killed_engine_is_answered_with_503_and_comes_back(serve: Serve, job: str) -> None:
    attempt, engine = attempt_at(serve, job), killed(serve, "app.engine")
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
    assert got_on(serve, job) == attempt


def a_killed_broker_comes_back(serve: Serve, job: str) -> None:
    attempt, broker = attempt_at(serve, job), broker_of(serve)
    assert broker
    broker.kill()
    wait_for(lambda: broker_of(serve) not in (None, broker), 10)
    wait_for(lambda: serve.http.get("/readyz").is_success, 30)
    assert got_on(serve, job) == attempt


def broker_of(serve: Serve) -> psutil.Process | None:
    return next((process for process in serve.processes() if process.name() == "valkey-server"), None)


def the_training_ends_as_if_nothing_had_been(serve: Serve, job: str) -> None:
    assert serve.http.post(f"{job}/finish").status_code == 202
    last = serve.succeeded(job)
    models = [model for model in serve.http.get("/models").json()["items"] if model["job_id"] == last["id"]]
    assert [model["id"] for model in models] == [last["result"]["model_id"]]
    steps = [row["step"] for row in serve.http.get(f"{job}/metrics").json()["rows"]]
    assert steps == list(range(1, last["progress"]["step"] + 1)), "no hole and no double"
    it_detects(serve, models[0]["id"])


@pytest.mark.parametrize("victim", ["harrier serve", "supervisord"])
def test_nothing_outlives_a_killed_supervisor(home: Path, victim: str) -> None:
    with Serve(home) as serve:
        pid = serve.process.pid if victim == "harrier serve" else serve.pid_of("app.supervisor.daemon")
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
    assert refused.returncode == os.EX_CONFIG
    assert "harrier keys create" in refused.stderr
    created = command(serve, "keys", "create", "me")
    assert created.returncode == 0, created.stderr
    assert created.stdout.startswith("hr_")
