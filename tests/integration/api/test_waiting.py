"""Why a queued job waits, and what a running one computes on, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, update

from app.database.tables import OutboxRow, Worker, utc_now
from app.jobs import protocol
from app.jobs.protocol import Claim, Device, Failure
from app.jobs.states import JobKind, Queue
from tests.integration.api.conftest import Api

GIB = 2**30
CARDS = {str(number): Device(str(number), "Fast Card", 16 * GIB, f"GPU-{number}") for number in range(3)}
PROCESSOR = Device("cpu", "Fast Core", 64 * GIB)


def add_worker(
    api: Api, numbers: str = "", *, queue: Queue = Queue.GPU, host: str = "rack-1", **values: Any
) -> str:
    """Put a worker in place with these of the accelerators; return its name."""
    devices = [
        {
            "index": int(number),
            "uuid": f"GPU-{number}",
            "name": "Fast Card",
            "memory_total_bytes": 16 * GIB,
            "memory_used_bytes": GIB,
        }
        for number in numbers
    ]
    row = Worker(name=f"{queue}@{host}:1", queue=queue, hostname=host, pid=1, devices=devices, **values)
    with api.session() as session:
        session.merge(row)
        session.commit()
        return row.name


def queued(api: Api, device: str = "auto", kind: JobKind = JobKind.TRAIN) -> str:
    return api.job(kind, config={"device": device})


def running(api: Api, devices: Sequence[Device], *, owner: str = "gpu@rack-1:1") -> Claim:
    job_id = queued(api, ",".join(device.number for device in devices))
    with api.session() as session:
        claim = protocol.claim_job(
            session, job_id, owner=owner, lease_s=45, host="rack-1", devices=list(devices)
        )
    assert claim is not None
    return claim


def waits(api: Api, job_id: str) -> dict[str, Any]:
    """Return what a job waits for, without what is null."""
    waiting = api.get(f"/jobs/{job_id}").json()["waiting_for"]
    return {name: value for name, value in waiting.items() if value is not None}


def test_without_a_worker(api: Api) -> None:
    job_id = queued(api)
    assert waits(api, job_id) == {
        "code": "no_worker",
        "message": "no worker of the queue gpu is running",
    }
    seen_at = utc_now() - timedelta(minutes=2)
    add_worker(api, "0", seen_at=seen_at)
    add_worker(api, queue=Queue.CPU)
    said = waits(api, job_id)
    assert said["message"] == (
        f"no worker of the queue gpu is alive; the last was seen at {seen_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    assert datetime.fromisoformat(said["since"]) == seen_at


def test_behind_a_running_job_on_its_device(api: Api) -> None:
    add_worker(api, "01")
    claim = running(api, [CARDS["0"]])
    second, third, free = queued(api, "0"), queued(api, "0,1"), queued(api, "auto")
    assert waits(api, second) == {
        "code": "device_busy",
        "message": f"device 0 of rack-1 is in use by job {claim.job_id}",
        "job_id": claim.job_id,
        "device": "0",
        "host": "rack-1",
    }
    assert waits(api, third) == {
        "code": "turn",
        "message": f"job {second} comes before it in the line for device 0 of rack-1",
        "job_id": second,
        "device": "0",
        "host": "rack-1",
    }
    assert waits(api, free)["job_id"] == third, "device 1 is kept for it"
    assert [api.get(f"/jobs/{each}").json()["queue_position"] for each in (second, third, free)] == [1, 2, 3]


def test_behind_others_on_the_cpu(api: Api) -> None:
    owner = add_worker(api)
    claim = running(api, [PROCESSOR], owner=owner)
    first, second = queued(api), queued(api, "cpu")
    assert waits(api, first)["message"] == f"the CPU of rack-1 is in use by job {claim.job_id}"
    assert waits(api, second)["message"] == f"job {first} comes before it in the line for the CPU of rack-1"


def test_a_free_device_is_taken_in_a_moment(api: Api) -> None:
    add_worker(api, "0", host="rack-1")
    running(api, [CARDS["0"]])
    add_worker(api, "1", host="rack-2")
    job_id = queued(api)
    assert waits(api, job_id)["code"] == "starting", "the other host has one"


def test_while_the_broker_is_silent(api: Api) -> None:
    add_worker(api, "0")
    job_id = queued(api)
    with api.session() as session:
        session.execute(update(OutboxRow).values(created_at=utc_now() - timedelta(minutes=1)))
        session.commit()
    said = waits(api, job_id)
    assert (said["code"], "broker does not answer" in said["message"]) == ("broker_silent", True)
    with api.session() as session:
        protocol.note_ring(session, job_id)
    assert waits(api, job_id)["code"] == "starting"


def test_until_it_may_be_tried_again(api: Api) -> None:
    add_worker(api, "0")
    claim = running(api, [CARDS["0"]])
    with api.session() as session:
        full = Failure("no_space", "the disk is full", retryable=True)
        protocol.requeue(session, claim.job_id, claim.fence, full, costs_attempt=True, delay_s=60)
    said = waits(api, claim.job_id)
    assert said["code"] == "retry_later"
    assert said["message"].endswith("UTC, because the disk is full")
    assert 50 < datetime.fromisoformat(said["until"]).timestamp() - time.time() <= 61
    assert waits(api, queued(api, "0"))["code"] == "starting", "who may not begin holds nobody up"


@pytest.mark.parametrize("device", ["7", "0,7", "0,0"])
def test_for_a_device_that_nobody_has(api: Api, device: str) -> None:
    add_worker(api, "01", host="rack-1")
    add_worker(api, "", host="rack-2")
    said = waits(api, queued(api, device))
    assert said == {
        "code": "device_missing",
        "message": f"no live worker of the queue gpu has the device '{device}'; there are: "
        "auto, 0 (Fast Card), 1 (Fast Card), cpu on rack-1; auto, cpu on rack-2",
        "device": device,
    }


def test_the_answer_to_a_new_job_says_it_too(api: Api) -> None:
    body = {"dataset_id": api.ready_dataset(), "architecture": "yolox-nano", "device": "2"}
    add_worker(api, "01")
    assert api.post("/train", body).json()["waiting_for"]["code"] == "device_missing"


def test_a_running_job_shows_its_devices_by_name(api: Api) -> None:
    claim = running(api, [CARDS["0"], CARDS["2"]])
    shown = api.get(f"/jobs/{claim.job_id}").json()
    assert (shown["waiting_for"], shown["queue_position"]) == (None, None)
    assert shown["config"]["device"] == "0,2"
    assert shown["devices"] == [
        {"device": "0", "name": "Fast Card", "memory_bytes": 16 * GIB},
        {"device": "2", "name": "Fast Card", "memory_bytes": 16 * GIB},
    ]
    with api.session() as session:
        drained = Failure("drained", "the worker was stopped", retryable=True)
        protocol.requeue(session, claim.job_id, claim.fence, drained, costs_attempt=False)
    shown = api.get(f"/jobs/{claim.job_id}").json()
    assert (shown["devices"], shown["config"]["device"]) == ([], "0,2")


def test_workers_say_which_job_has_which_device(api: Api) -> None:
    add_worker(api, "01")
    claim = running(api, [CARDS["1"]])
    (worker,) = api.get("/workers").json()
    assert [(each["index"], each["job_id"]) for each in worker["devices"]] == [(0, None), (1, claim.job_id)]
    assert worker["cpu_jobs"] == 1


def test_the_etag_changes_with_what_is_waited_for(api: Api) -> None:
    job_id = queued(api, "0")
    before = api.get(f"/jobs/{job_id}").headers["ETag"]
    assert api.get(f"/jobs/{job_id}", headers={"If-None-Match": before}).status_code == 304
    add_worker(api, "0")
    assert api.get(f"/jobs/{job_id}", headers={"If-None-Match": before}).status_code == 200


def test_many_jobs_are_shown_with_as_many_queries_as_few(api: Api) -> None:
    add_worker(api, "01")
    running(api, [CARDS["0"]])
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "job_events" not in statement:  # the stream of events asks all the time
            asked.append(statement)

    counts = []
    event.listen(api.state.database, "before_cursor_execute", note)
    for _ in range(2):
        for device in ("0", "auto", "cpu", "7"):
            queued(api, device)
            queued(api, device, JobKind.EVALUATE)
        asked.clear()
        answer = api.get("/jobs?limit=100").json()["items"]
        counts.append(len([each for each in asked if each.lower().startswith("select")]))
        assert all(each["waiting_for"] for each in answer if each["status"] == "queued")
    event.remove(api.state.database, "before_cursor_execute", note)
    assert counts[0] == counts[1] <= 8
