"""Room: what counts, what the quota refuses and what it does not, and what the settings say."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.types import Message

from app.api import uploads
from app.api.uploads import UploadRules, received_form
from app.database.tables import Dataset, Job
from app.errors import QuotaExceededError
from app.jobs import protocol
from app.jobs.service import check_queue_has_room
from app.jobs.states import JobKind
from app.usage import service
from tests.integration.api.conftest import Api, MakeApi, assert_problem, small_zip

MIB = 1024 * 1024


def checkpoint(api: Api, job_id: str, num_bytes: int) -> None:
    folder = api.settings.checkpoints / job_id
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(b"1" * num_bytes)


def weights(api: Api, content: bytes) -> object:
    return api.client.post("/models/import", files={"weights": ("w.pth", content)})


def test_usage_counts_what_lies_around(api: Api) -> None:
    api.ready_dataset(size_bytes=100)
    api.ready_dataset(size_bytes=5, stored_bytes=300)
    api.ready_dataset(status="importing", size_bytes=20)
    api.ready_dataset(status="rejected", size_bytes=10**9)
    api.model({"onnx": b"12345", "safetensors": b"123"})
    job_id = api.job(name="a training")
    checkpoint(api, job_id, 10)
    checkpoint(api, "of-another-host", 4)
    usage = api.get("/usage").json()
    assert [used["bytes"] for used in usage["datasets"]] == [300, 100, 20, 0]
    assert [used["bytes"] for used in usage["models"]] == [8]
    assert [(used["id"], used["name"], used["bytes"]) for used in usage["jobs"]] == [
        (job_id, "a training", 10),
        ("of-another-host", "of-another-host", 4),
    ]
    assert usage["total_bytes"] == 442
    assert usage["free_bytes"] > 0
    assert (usage["quota_bytes"], usage["quota_left_bytes"]) == (None, None)


def test_nothing_is_used_at_first(make_api: MakeApi) -> None:
    usage = make_api(storage_quota_bytes=1000).get("/usage").json()
    assert (usage["total_bytes"], usage["quota_bytes"], usage["quota_left_bytes"]) == (0, 1000, 1000)


def test_usage_says_how_long_things_are_kept(make_api: MakeApi) -> None:
    assert make_api().get("/usage").json()["retention"] == {
        "jobs_days": None,
        "rejected_days": None,
        "audit_days": None,
        "events_days": 7.0,
    }
    api = make_api(keep_jobs_days=90, keep_rejected_days=0.5, keep_audit_days=365, keep_events_days=1)
    assert list(api.get("/usage").json()["retention"].values()) == [90.0, 0.5, 365.0, 1.0]


def test_an_upload_fits_to_the_byte(make_api: MakeApi) -> None:
    archive = small_zip()
    api = make_api(storage_quota_bytes=2 * len(archive) + 100)
    api.ready_dataset(size_bytes=100)
    assert api.upload(archive).status_code == 202
    assert api.upload(archive).status_code == 202
    assert api.get("/usage").json()["quota_left_bytes"] == 0
    problem = assert_problem(api.upload(archive), 413, "quota_exceeded")
    assert problem["links"] == {"usage": "/usage"}
    assert "HARRIER_STORAGE_QUOTA_BYTES" in problem["detail"]
    assert len(api.rows(Dataset)) == 3
    assert len(api.rows(Job)) == 2


def test_one_byte_too_many_is_refused_and_leaves_nothing(make_api: MakeApi) -> None:
    archive = small_zip()
    api = make_api(storage_quota_bytes=len(archive) - 1)
    assert_problem(api.upload(archive), 413, "quota_exceeded")
    assert list(api.state.storage.keys("uploads/")) == []
    assert list((api.settings.scratch / "uploads").iterdir()) == []


def test_what_is_announced_is_refused_before_it_is_read(make_api: MakeApi) -> None:
    api = make_api(storage_quota_bytes=MIB)
    read = 0

    def body() -> Iterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += MIB
            yield b"x" * MIB

    headers = {"content-type": "multipart/form-data; boundary=b", "content-length": str(100 * MIB)}
    answer = api.client.post("/datasets", content=body(), headers=headers)
    assert_problem(answer, 413, "quota_exceeded")
    assert not (api.settings.scratch / "uploads").exists() or not any(
        (api.settings.scratch / "uploads").iterdir()
    )


def test_what_is_not_announced_is_refused_while_it_comes(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Piece by piece, as a server hands it on; the test client would hand it over as a whole."""
    monkeypatch.setattr(uploads, "SPACE_EVERY_BYTES", MIB)
    api = make_api(storage_quota_bytes=2 * MIB)
    archive, sent = small_zip("picture.jpg", "x" * 20 * MIB), 0
    head = b'--b\r\nContent-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\n'

    async def receive() -> Message:
        nonlocal sent
        piece = archive[sent : sent + MIB // 4] if sent else head + archive[: MIB // 4]
        sent += MIB // 4
        return {"type": "http.request", "body": piece, "more_body": True}

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    rules = UploadRules(
        field="archive",
        max_bytes=100 * MIB,
        min_free_bytes=1,
        check_room=api.state.check_room,
        check_head=lambda head: None,
    )
    folder = api.settings.scratch / "uploads"

    async def upload() -> None:
        async with received_form(request, folder, rules):
            pass

    with pytest.raises(QuotaExceededError):
        anyio.run(upload)
    assert 2 * MIB < sent <= 4 * MIB, "it ended soon after the quota, not with the file"
    assert list(folder.iterdir()) == []


def test_weights_count_from_the_moment_they_are_taken(make_api: MakeApi) -> None:
    api = make_api(storage_quota_bytes=150)
    first = weights(api, b"w" * 100)
    assert first.status_code == 202, first.text  # type: ignore[attr-defined]
    assert api.get("/usage").json()["total_bytes"] == 100
    assert_problem(weights(api, b"w" * 100), 413, "quota_exceeded")
    [job] = api.rows(Job)
    api.post(f"/jobs/{job.id}/cancel")
    assert api.get("/usage").json()["total_bytes"] == 0


def test_no_training_begins_when_nothing_fits_any_more(make_api: MakeApi) -> None:
    api = make_api(storage_quota_bytes=1000)
    dataset_id = api.ready_dataset(size_bytes=999)
    assert api.post("/train", {"dataset_id": dataset_id}).status_code == 202
    api.ready_dataset(size_bytes=1)
    assert_problem(api.post("/train", {"dataset_id": dataset_id}), 413, "quota_exceeded")
    assert len(api.rows(Job)) == 1


def test_what_was_accepted_may_go_on(make_api: MakeApi) -> None:
    api = make_api(storage_quota_bytes=1000)
    model_id, dataset_id = api.model({"onnx": b"x" * 2000}), api.ready_dataset()
    job_id = api.job(JobKind.TRAIN, dataset_id=dataset_id)
    api.post(f"/jobs/{job_id}/cancel")
    assert api.post(f"/jobs/{job_id}/resume").status_code == 202
    assert api.post(f"/models/{model_id}/export", {"format": "torch"}).status_code == 202
    wish = {"dataset_id": dataset_id, "split": "val"}
    assert api.post(f"/models/{model_id}/evaluate", wish).status_code == 202


def test_deleting_makes_room(make_api: MakeApi) -> None:
    archive = small_zip()
    api = make_api(storage_quota_bytes=len(archive) + 10)
    dataset_id = api.ready_dataset(size_bytes=100)
    assert_problem(api.upload(archive), 413, "quota_exceeded")
    assert api.client.delete(f"/datasets/{dataset_id}").status_code == 204
    assert api.upload(archive).status_code == 202


def test_a_refused_upload_frees_its_key(make_api: MakeApi) -> None:
    archive = small_zip()
    api = make_api(storage_quota_bytes=len(archive))
    dataset_id = api.ready_dataset(size_bytes=100)
    key = {"Idempotency-Key": "k"}
    assert_problem(api.upload(archive, headers=key), 413, "quota_exceeded")
    api.client.delete(f"/datasets/{dataset_id}")
    assert api.upload(archive, headers=key).status_code == 202


def test_a_training_that_tidies_up_meanwhile_is_no_fault(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = api.job()
    checkpoint(api, job_id, 10)
    folder = api.settings.checkpoints / job_id
    for name in ("1", "2"):
        (folder / name).mkdir()
        (folder / name / "weights").write_bytes(b"123")
    size = service._size

    def tidied(path: Path) -> int:
        found = size(path)
        shutil.rmtree(folder, ignore_errors=True)
        return found

    monkeypatch.setattr(service, "_size", tidied)
    assert api.get("/usage").json()["total_bytes"] == 10


def test_the_sum_is_that_of_its_parts(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for job_id in (api.job(), api.job()):
        checkpoint(api, job_id, 10)
    growing = itertools.count(1)
    monkeypatch.setattr(service, "_size", lambda path: next(growing))
    usage = api.get("/usage").json()
    assert usage["total_bytes"] == sum(used["bytes"] for used in usage["jobs"])


def asked_meanwhile(session: Session, ask: Callable[[], Any]) -> Any:
    """Return the answer to a request that comes before this session has committed."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        wait([asked], timeout=1.0)
        session.commit()
        return asked.result()


def test_the_same_room_is_not_promised_twice(make_api: MakeApi) -> None:
    archive = small_zip()
    api = make_api(storage_quota_bytes=len(archive))
    with api.session() as first:
        service.take_room(first, api.settings, len(archive))
        first.add(Dataset(name="first", sha256="0" * 64, size_bytes=len(archive)))
        first.flush()
        assert_problem(asked_meanwhile(first, lambda: api.upload(archive)), 413, "quota_exceeded")
    assert len(api.rows(Dataset)) == 1


def test_the_last_place_in_the_queue_is_not_promised_twice(make_api: MakeApi) -> None:
    api = make_api(max_queued_jobs=1)
    wish = {"dataset_id": api.ready_dataset()}
    with api.session() as first:
        check_queue_has_room(first, api.settings)
        protocol.add_job(first, JobKind.TRAIN)
        first.flush()
        assert_problem(asked_meanwhile(first, lambda: api.post("/train", wish)), 503, "overloaded")
    assert len(api.rows(Job)) == 1
