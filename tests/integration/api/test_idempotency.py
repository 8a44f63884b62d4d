"""A creating request that comes twice makes one thing, even when both come at once."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psutil
import pytest

from app.database.tables import Dataset, IdempotencyKey, Job, utc_now
from app.keys.service import Scope, create_key
from tests.integration.api.conftest import Api, MakeApi, assert_problem, small_zip

KEY = {"Idempotency-Key": "a-key-of-mine"}


def keys(api: Api) -> list[IdempotencyKey]:
    return api.rows(IdempotencyKey)


def reserve(api: Api, **changes: Any) -> None:
    """Leave a reservation, as a request does that still runs."""
    process = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    row = {
        "owner": "",
        "key": KEY["Idempotency-Key"],
        "fingerprint": "",
        "headers": process,
    }
    with api.session() as session:
        session.add(IdempotencyKey(**{**row, **changes}))
        session.commit()


def test_the_first_answer_comes_again(api: Api) -> None:
    body = {"dataset_id": api.ready_dataset(), "epochs": 5}
    first, second = (api.post("/train", body, headers=KEY) for _ in range(2))
    assert first.status_code == second.status_code == 202
    assert first.json() == second.json()
    assert second.headers["location"] == first.headers["location"]
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert len(api.rows(Job)) == 1


def test_all_addresses_of_a_replay_are_those_of_today(make_api: MakeApi) -> None:
    first = make_api(root_path="/old").upload(headers=KEY)
    again = make_api(root_path="/new").upload(headers=KEY)
    assert again.headers["idempotency-replayed"] == "true"
    here = f"/datasets/{first.json()['id']}"
    for answer, prefix in ((first, "/old"), (again, "/new")):
        assert answer.headers["location"] == answer.json()["links"]["self"] == f"{prefix}{here}"


def test_an_upload_is_known_by_its_content(api: Api) -> None:
    first = api.upload(name="x", headers=KEY)
    second = api.upload(name="x", headers=KEY)  # with another boundary
    assert first.json() == second.json()
    assert len(api.rows(Dataset)) == 1
    other_fields = api.upload(name="y", headers=KEY)
    assert_problem(other_fields, 422, "idempotency_key_reused")
    other_file = api.upload(small_zip("other"), name="x", headers=KEY)
    assert_problem(other_file, 422, "idempotency_key_reused")


def test_every_creating_call_takes_a_key(api: Api) -> None:
    model_id, dataset_id = api.model({"onnx": b"x"}), api.ready_dataset()
    calls = [
        lambda key: api.post(f"/models/{model_id}/export", {"format": "torch"}, headers=key),
        lambda key: api.post(f"/models/{model_id}/evaluate", {"dataset_id": dataset_id}, headers=key),
        lambda key: api.client.post("/models/import", files={"weights": ("w", b"x")}, headers=key),
    ]
    for number, call in enumerate(calls):
        key = {"Idempotency-Key": f"key-{number}"}
        first, second = call(key), call(key)
        assert (first.status_code, first.json()) == (202, second.json())
    assert len(api.rows(Job)) == 3


def test_a_key_means_one_thing_on_whatever_path(api: Api) -> None:
    models = [api.model({"safetensors": b"x"}) for _ in range(2)]
    first = api.post(f"/models/{models[0]}/export", {"format": "torch"}, headers=KEY)
    assert first.status_code == 202
    other_model = api.post(f"/models/{models[1]}/export", {"format": "torch"}, headers=KEY)
    assert_problem(other_model, 422, "idempotency_key_reused")
    other_call = api.post("/train", {"dataset_id": api.ready_dataset()}, headers=KEY)
    assert_problem(other_call, 422, "idempotency_key_reused")
    assert len(api.rows(Job)) == 1
    again = api.post(f"/models/{models[0]}/export", {"format": "torch"}, headers=KEY)
    assert again.json() == first.json()


def test_an_export_that_was_there_is_replayed_too(api: Api) -> None:
    model_id = api.model({"onnx": b"x"})
    answers = [api.post(f"/models/{model_id}/export", {"format": "onnx"}, headers=KEY) for _ in range(2)]
    assert answers[0].json()["id"] == answers[1].json()["id"]


def test_a_refused_request_frees_its_key(api: Api) -> None:
    assert api.post("/train", {"dataset_id": "nothing"}, headers=KEY).status_code == 404
    assert api.post("/train", {"dataset_id": "x", "epochs": 0}, headers=KEY).status_code == 422
    assert api.upload(b"no archive", headers=KEY).status_code == 415
    assert keys(api) == []
    assert api.post("/train", {"dataset_id": api.ready_dataset()}, headers=KEY).status_code == 202


def test_a_key_that_is_in_use_is_refused(api: Api) -> None:
    reserve(api)
    answer = api.post("/train", {"dataset_id": api.ready_dataset()}, headers=KEY)
    assert_problem(answer, 409, "idempotency_key_in_use")
    assert answer.headers["retry-after"] == "1"
    assert len(keys(api)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {"host": socket.gethostname(), "pid": 2**22 + 1, "started": 1.0}},
        {"headers": {"host": socket.gethostname(), "pid": os.getpid(), "started": 1.0}},
        {
            "headers": {"host": "elsewhere", "pid": 1, "started": 1.0},
            "created_at": utc_now() - timedelta(hours=2),
        },
    ],
    ids=["dead", "number given anew", "long ago elsewhere"],
)
def test_the_key_of_a_killed_request_is_taken_over(api: Api, changes: dict[str, Any]) -> None:
    reserve(api, **changes)
    assert api.post("/train", {"dataset_id": api.ready_dataset()}, headers=KEY).status_code == 202
    assert len(keys(api)) == 1


def test_a_request_on_another_host_is_given_time(api: Api) -> None:
    reserve(api, headers={"host": "elsewhere", "pid": 1, "started": 1.0})
    answer = api.post("/train", {"dataset_id": api.ready_dataset()}, headers=KEY)
    assert_problem(answer, 409, "idempotency_key_in_use")


def test_a_key_is_forgotten_after_its_time(make_api: MakeApi) -> None:
    api = make_api(idempotency_hours=1)
    body = {"dataset_id": api.ready_dataset()}
    first = api.post("/train", body, headers=KEY)
    with api.session() as session:
        session.query(IdempotencyKey).update({"created_at": utc_now() - timedelta(hours=2)})
        session.commit()
    assert api.post("/train", body, headers=KEY).json()["id"] != first.json()["id"]


def test_callers_do_not_share_keys(make_api: MakeApi) -> None:
    api = make_api(require_keys=True)
    with api.session() as session:
        secrets = [create_key(session, name, [Scope.TRAIN]) for name in ("a", "b")]
    body = {"dataset_id": api.ready_dataset()}
    ids = [
        api.post("/train", body, headers={**KEY, "X-API-Key": secret}).json()["id"]
        for secret in (*secrets, *secrets)
    ]
    assert ids[:2] == ids[2:]
    assert ids[0] != ids[1]


def test_twenty_at_once_make_one_job(api: Api) -> None:
    body = {"dataset_id": api.ready_dataset()}

    def send(_: int) -> Any:
        return api.post("/train", body, headers=KEY)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert len(api.rows(Job)) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "ümlaut"])
def test_a_key_must_be_one_word(api: Api, key: str) -> None:
    answer = api.client.post("/train", json={"dataset_id": "x"}, headers={"Idempotency-Key": key.encode()})
    problem = assert_problem(answer, 422, "invalid_input")
    assert problem["errors"][0]["place"] == "header"
