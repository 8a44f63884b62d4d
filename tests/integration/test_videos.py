"""A video over the API, by a real worker: looked at, watched, cancelled, and begun anew after a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.jobs.states import JobStatus, Queue
from app.main import create_app
from detection.video.reader import VideoReader
from tests.clips import NUM_FRAMES, clip, moving_square
from tests.published import add_model
from tests.services import Home, wait_until

MP4 = {"Content-Type": "video/mp4"}


@pytest.fixture
def client(home: Home) -> Iterator[TestClient]:
    add_model(home.settings)
    with TestClient(create_app(home.settings, bell=home.bell), base_url="http://127.0.0.1:8000") as client:
        yield client


def post(client: TestClient, video: bytes, **query: Any) -> str:
    answer = client.post("/detect", content=video, params=query, headers=MP4)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def numbers(client: TestClient, job_id: str) -> list[int]:
    lines = client.get(f"/jobs/{job_id}/detections").text.splitlines()
    return [json.loads(line)["frame"] for line in lines[1:]]


def test_a_video_is_looked_at_also_when_its_worker_is_killed(
    home: Home, client: TestClient, tmp_path: Path
) -> None:
    """The first attempt dies when all is stored and nothing is visible; the second begins anew."""
    home.start_worker(Queue.GPU, HARRIER_FAULT_POINT="video_uncommitted:1")
    job_id = post(client, clip(), score_threshold=0.45)
    job = home.wait_for(job_id, timeout_s=120)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2), home.logs()

    shown = client.get(f"/jobs/{job_id}").json()
    assert shown["progress"] == {
        "epoch": None,
        "epochs": None,
        "step": NUM_FRAMES,
        "steps": NUM_FRAMES,
        "fraction": 1.0,
    }
    assert numbers(client, job_id) == list(range(NUM_FRAMES))
    annotated = tmp_path / "annotated"
    annotated.write_bytes(client.get(shown["links"]["video"]).content)
    with VideoReader(annotated) as reader:
        assert len(list(reader.frames())) == NUM_FRAMES
    wait_until(lambda: not list(home.storage.keys("uploads/")), timeout_s=20)
    assert {key.split("/")[2] for key in home.storage.keys("videos/")} == {str(job.fence)}
    endless_one_is_cancelled(home, client)


def endless_one_is_cancelled(home: Home, client: TestClient) -> None:
    job_id = post(client, clip("avi", moving_square(1, (640, 480)) * 400))
    wait_until(lambda: home.job(job_id).progress.get("step", 0) > 0, timeout_s=60)
    assert client.post(f"/jobs/{job_id}/cancel").status_code == 202
    assert home.wait_for(job_id, timeout_s=20).status == JobStatus.CANCELLED
    assert client.get(f"/jobs/{job_id}/detections").json()["code"] == "file_not_made"
    assert list(home.storage.keys(f"videos/{job_id}/")) == []
