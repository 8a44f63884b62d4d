"""A wrong request is answered once with all that is wrong, and a name is one that people can read."""

from __future__ import annotations

from typing import Any

import pytest

from app.database.tables import Dataset, Job
from app.errors import InvalidInputError
from app.keys.service import Scope, create_key, list_keys
from tests.integration.api.conftest import Api, assert_problem, pointers

HIDDEN = ("a\u202eb", "\u2066a", "a\nb", "a\u200bb", "\ufeffa", "a\x7f")
BLANK = ("", "   ", "\u00a0", "\u200d")


def problem_at(problem: dict[str, Any], pointer: str) -> str:
    [said] = [error["problem"] for error in problem["errors"] if error["pointer"] == pointer]
    return str(said)


def test_a_training_is_refused_in_one_round(api: Api) -> None:
    body = {
        "dataset_id": api.ready_dataset(),
        "batch_size": -1,
        "ephocs": 3,
        "lr": 0.1,
        "precision": "fp16",
        "sync_bn": True,
        "optimizer": {"lr": 1, "lr_per_image": 1, "knd": "sgd"},
        "schedule": {"kind": "multi_step"},
    }
    problem = assert_problem(api.post("/train", body), 422, "invalid_input")
    assert sorted(pointers(problem)) == [
        "/batch_size",
        "/ephocs",
        "/lr",
        "/optimizer/knd",
        "/optimizer/lr_per_image",
        "/precision",
        "/schedule/kind",
        "/sync_bn",
    ]
    assert problem_at(problem, "/batch_size") == "Input should be greater than or equal to 1, or 'auto'"
    assert problem_at(problem, "/ephocs").endswith("did you mean `epochs`?")
    assert problem_at(problem, "/lr").endswith("did you mean `optimizer.lr`?")
    assert problem_at(problem, "/optimizer/knd").endswith("did you mean `kind`?")
    assert problem_at(problem, "/schedule/kind").endswith("did you mean `multistep`?")
    assert "(and 7 more)" in problem["detail"]
    assert api.rows(Job) == []


def test_a_refused_training_frees_its_key(api: Api) -> None:
    key, dataset_id = {"Idempotency-Key": "k"}, api.ready_dataset()
    for wrong in ({"epochs": 0}, {"sync_bn": True}):
        answer = api.post("/train", {"dataset_id": dataset_id, **wrong}, headers=key)
        assert_problem(answer, 422, "invalid_input")
    assert api.post("/train", {"dataset_id": dataset_id}, headers=key).status_code == 202


def test_forms_and_queries_are_helped_as_well(api: Api) -> None:
    problem = assert_problem(api.upload(formt="yolo", classes='{"renam": {}}'), 422, "invalid_input")
    assert problem_at(problem, "/formt").endswith("did you mean `format`?")
    assert problem_at(problem, "/classes/renam").endswith("did you mean `rename`?")
    problem = assert_problem(api.get("/jobs?status=runing"), 422, "invalid_input")
    assert problem_at(problem, "/status").endswith("did you mean `running`?")
    problem = assert_problem(api.post("/detect", {"images": [], "score_treshold": 0}), 422, "invalid_input")
    assert problem_at(problem, "/score_treshold").endswith("did you mean `score_threshold`?")


@pytest.mark.parametrize("name", HIDDEN + BLANK)
def test_nothing_is_given_a_name_that_nobody_can_read(api: Api, name: str) -> None:
    dataset_id, model_id = api.ready_dataset(), api.model()
    for path in (f"/datasets/{dataset_id}", f"/models/{model_id}"):
        problem = assert_problem(api.client.patch(path, json={"name": name}), 422, "invalid_input")
        assert pointers(problem) == ["/name"]
    body = {"dataset_id": dataset_id, "name": name}
    assert pointers(assert_problem(api.post("/train", body), 422, "invalid_input")) == ["/name"]
    with api.session() as session, pytest.raises(InvalidInputError):
        create_key(session, name, [Scope.READ])


@pytest.mark.parametrize("name", [*HIDDEN, "\u200d", "  "])
def test_nor_is_a_new_class_or_an_upload(api: Api, name: str) -> None:
    assert_problem(api.upload(name=f"a{name}\u202e"), 422, "invalid_input")
    quoted = '"' + "".join(f"\\u{ord(char):04x}" for char in name) + '"'
    rules = (f'{{"rename": {{"old": {quoted}}}}}', f'{{"merge": {{{quoted}: ["a", "b"]}}}}')
    for classes in rules:
        assert_problem(api.upload(classes=classes), 422, "invalid_input")
    answer = api.client.post(
        "/models/import", files={"weights": ("w.pth", b"w")}, data={"classes": f"[{quoted}]"}
    )
    assert_problem(answer, 422, "invalid_input")


def test_an_old_class_may_be_called_anything(api: Api) -> None:
    classes = '{"rename": {"a\\u202eb": "cell"}, "drop": ["\\u200b"], "merge": {"c": ["\\u0007"]}}'
    assert api.upload(classes=classes).status_code == 202
    [dataset] = api.rows(Dataset)
    assert dataset.options["classes"]["rename"] == {"a\u202eb": "cell"}


@pytest.mark.parametrize("name", ["Färbung 2", "血球", "می\u200cخواهم", "👩\u200d🔬"])
def test_every_script_can_name_a_thing(api: Api, name: str) -> None:
    dataset_id = api.ready_dataset()
    assert api.client.patch(f"/datasets/{dataset_id}", json={"name": f" {name} "}).json()["name"] == name
    assert api.post("/train", {"dataset_id": dataset_id, "name": name}).json()["name"] == name
    with api.session() as session:
        create_key(session, name, [Scope.READ])
        assert [key.name for key in list_keys(session)] == [name]
