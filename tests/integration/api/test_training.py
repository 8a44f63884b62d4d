"""Trainings over HTTP: what is asked for, what is refused, and what becomes the job."""

from __future__ import annotations

from typing import Any

import pytest

from app.database.tables import Job, OutboxRow
from app.jobs.states import Queue
from detection.architectures import names_for
from detection.data.coco_classes import COCO_CLASSES
from detection.tasks import Task
from tests.integration.api.conftest import Api, MakeApi, assert_problem, pointers

NANODETS = ("nanodet-plus-m", "nanodet-plus-m-1.5x")


def test_a_training_needs_only_a_dataset(api: Api) -> None:
    dataset_id = api.ready_dataset()
    answer = api.post("/train", {"dataset_id": dataset_id, "epochs": 10})
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert (job["kind"], job["queue"], job["status"]) == ("train", "gpu", "queued")
    assert job["name"] == "yolox-nano on pets"
    assert job["dataset_id"] == dataset_id
    assert api.bell.rings == [(job["id"], Queue.GPU)]
    assert [row.job_id for row in api.rows(OutboxRow)] == [job["id"]]


def test_the_job_shows_the_whole_recipe(api: Api) -> None:
    config = api.post("/train", {"dataset_id": api.ready_dataset(), "epochs": 10}).json()["config"]
    assert config["batch_size"] == 4  # as many as there are to train on
    assert config["input_size"] == 416
    assert config["optimizer"]["lr"] == pytest.approx(4 * 0.01 / 64 * 4)
    assert config["schedule"]["no_aug_epochs"] == 2
    assert config["assigner"]["centre_radius"] == 2.5
    assert config["schedule"]["warmup_start"] == 0.0
    assert config["init"] == "random"
    assert "dataset_id" not in config
    assert "name" not in config


def test_without_a_number_of_epochs_the_answer_shows_the_published_one(api: Api) -> None:
    config = api.post("/train", {"dataset_id": api.ready_dataset()}).json()["config"]
    assert config["epochs"] == 300
    assert (config["schedule"]["no_aug_epochs"], config["evaluation"]["every_epochs"]) == (15, 10)


def test_what_is_chosen_is_what_runs(api: Api) -> None:
    chosen: dict[str, Any] = {
        "architecture": "yolox-tiny",
        "epochs": 3,
        "batch_size": 2,
        "input_size": 320,
        "device": "cpu",
        "optimizer": {"kind": "adamw", "lr": 0.002},
        "schedule": {"kind": "cos", "warmup_steps": 1},
        "augmentation": {"mosaic": 0.25, "mosaic_scale": [0.8, 1.2]},
        "name": "chosen",
    }
    job = api.post("/train", {"dataset_id": api.ready_dataset(), **chosen}).json()
    config = job["config"]
    assert job["name"] == "chosen"
    assert (config["architecture"], config["batch_size"], config["input_size"]) == ("yolox-tiny", 2, 320)
    assert (config["optimizer"]["kind"], config["optimizer"]["lr"]) == ("adamw", 0.002)
    assert config["augmentation"]["mosaic_scale"] == [0.8, 1.2]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"epochs": -1}, "/epochs"),
        ({"epochs": 10**9}, "/epochs"),
        ({"epochs": "many"}, "/epochs"),
        ({"batch_size": 0}, "/batch_size"),
        ({"input_size": 7}, "/input_size"),
        ({"input_size": 100}, "/input_size"),
        ({"architecture": "../../x"}, "/architecture"),
        ({"optimizer": {"lr": "1e999"}}, "/optimizer/lr"),
        ({"optimizer": {"lr": 1, "lr_per_image": 1}}, "/optimizer/lr_per_image"),
        ({"optimizer": {"speed": 1}}, "/optimizer/speed"),
        ({"schedule": {"kind": "multistep"}}, "/schedule/milestones"),
        ({"augmentation": {"mosaic_scale": [2, 1]}}, "/augmentation/mosaic_scale"),
        ({"augmentation": {"mosaic": 1.5}}, "/augmentation/mosaic"),
        ({"classifier": True}, "/classifier"),
        ({"name": "a\u0007b"}, "/name"),
        ({"init": "x" * 65}, "/init"),
        ({"processes": 2, "batch_size": 3}, "/batch_size"),
        ({"processes": True}, "/processes"),
        ({"processes": "2"}, "/processes"),
        ({"device": "0,1", "batch_size": 3}, "/batch_size"),
        ({"processes": 2, "freeze": {"parts": ["neck"], "batch_size": 3}}, "/freeze/batch_size"),
        ({"device": "0,1", "processes": 3, "batch_size": 6}, "/processes"),
        ({"device": "0", "processes": 2}, "/processes"),
        ({"sync_bn": True}, "/sync_bn"),
        ({"sync_bn": True, "device": "cpu", "processes": 1}, "/sync_bn"),
        ({"device": "banana"}, "/device"),
        ({"device": "cpu,0"}, "/device"),
        ({"device": "0,0"}, "/device"),
        ({"device": ""}, "/device"),
        ({"weight_init": {"gain": 5}}, "/weight_init/gain"),
        ({"init": "pretrained", "weight_init": {"gain": 3}}, "/weight_init/gain"),
        ({"schedule": {"kind": "multistep", "milestones": [5, 20]}}, "/schedule/milestones"),
        ({"freeze": {"parts": ["backbone", "head"]}}, "/freeze/parts/1"),
        ({"dataset_id": "../x"}, "/dataset_id"),
    ],
)
def test_a_wrong_field_is_named(api: Api, body: dict[str, Any], pointer: str) -> None:
    answer = api.post("/train", {"dataset_id": api.ready_dataset(), "epochs": 20, **body})
    assert pointer in pointers(assert_problem(answer, 422, "invalid_input"))
    assert api.rows(Job) == []


@pytest.mark.parametrize(
    ("body", "batch_size", "processes"),
    [
        ({"processes": 3}, 3, 3),
        ({"processes": 2, "device": "cpu", "sync_bn": True, "batch_size": 6}, 6, 2),
        ({"device": "0,1"}, 4, 2),
        ({"device": "0,1", "processes": 2, "sync_bn": True, "batch_size": 2}, 2, 2),
        ({"device": "1", "processes": 1}, 4, 1),
    ],
)
def test_several_processes_share_a_batch_evenly(
    api: Api, body: dict[str, Any], batch_size: int, processes: int
) -> None:
    answer = api.post("/train", {"dataset_id": api.ready_dataset(), **body})
    assert answer.status_code == 202, answer.text
    config = answer.json()["config"]
    assert (config["batch_size"], config["processes"]) == (batch_size, processes)


def test_all_faults_are_listed_at_once(api: Api) -> None:
    body = {"dataset_id": "x", "epochs": 0, "ema": {"decay": 2}, "nonsense": 1}
    problem = assert_problem(api.post("/train", body), 422, "invalid_input")
    assert set(pointers(problem)) == {"/epochs", "/ema/decay", "/nonsense"}
    assert "(and 2 more)" in problem["detail"]


def test_the_dataset_must_be_there_and_ready(api: Api) -> None:
    assert_problem(api.post("/train", {"dataset_id": "nothing"}), 404, "not_found")
    importing = api.upload().json()["id"]
    assert_problem(api.post("/train", {"dataset_id": importing}), 409, "dataset_not_ready")
    empty = api.ready_dataset(splits={"val": {"images": 2, "boxes": 1}})
    assert_problem(api.post("/train", {"dataset_id": empty}), 409, "empty_split")


def test_a_detector_needs_boxes_and_a_classifier_single_objects(api: Api) -> None:
    folders = api.ready_dataset(format="folders")
    problem = assert_problem(api.post("/train", {"dataset_id": folders}), 422, "invalid_input")
    assert pointers(problem) == ["/dataset_id"]
    assert '`"task": "classify"`' in problem["detail"]
    assert api.post("/train", {"dataset_id": folders, "task": "classify"}).status_code == 202
    crowds = {"images": 4, "boxes": 4, "crowds": 4}
    crowded = api.ready_dataset(splits={"train": crowds})
    assert api.get(f"/datasets/{crowded}").json()["splits"] == {"train": crowds}
    problem = assert_problem(
        api.post("/train", {"dataset_id": crowded, "task": "classify"}), 409, "empty_split"
    )
    assert "no boxes of single objects" in problem["detail"]


def test_pretrained_of_a_classifier_says_where_torchvisions_file_is(api: Api) -> None:
    wish = {"dataset_id": api.ready_dataset(), "architecture": "resnet18", "init": "pretrained"}
    problem = assert_problem(api.post("/train", wish), 409, "no_pretrained_weights")
    assert "torchvision.models.get_model_weights('resnet18').DEFAULT.url" in problem["detail"]


def test_pretrained_is_the_newest_import_of_the_architecture(api: Api) -> None:
    dataset_id = api.ready_dataset()
    problem = assert_problem(
        api.post("/train", {"dataset_id": dataset_id, "init": "pretrained"}), 409, "no_pretrained_weights"
    )
    assert "POST /models/import" in problem["detail"]
    assert "harrier weights get yolox-nano" in problem["detail"]
    api.model(classes=["cat", "dog"])
    api.model(classes=[*COCO_CLASSES], origin="trained")
    api.model(classes=[*COCO_CLASSES], architecture="yolox-s")
    problem = assert_problem(
        api.post("/train", {"dataset_id": dataset_id, "init": "pretrained"}), 409, "no_pretrained_weights"
    )
    assert "give its id" in problem["detail"]
    api.model(classes=[*COCO_CLASSES])
    newest = api.model(classes=[*COCO_CLASSES])
    job = api.post("/train", {"dataset_id": dataset_id, "init": "pretrained"}).json()
    assert job["config"]["init"] == newest
    assert job["model_id"] == newest


def test_pretrained_weights_with_folded_batch_norms_are_the_last_choice_and_the_log_says_which(
    api: Api,
) -> None:
    def chosen() -> tuple[str, str]:
        job = api.post("/train", {"dataset_id": dataset_id, "init": "pretrained"}).json()
        return job["model_id"], api.get(f"/jobs/{job['id']}/log").text

    dataset_id = api.ready_dataset()
    folded = api.model(name="from onnx", classes=[*COCO_CLASSES], provenance={"folded": True})
    model_id, log = chosen()
    assert model_id == folded
    assert f"'from onnx', model {folded}" in log
    assert "re-created from the training's pictures" in log
    whole = api.model(name="from pth", classes=[*COCO_CLASSES], provenance={"folded": False})
    api.model(classes=[*COCO_CLASSES], provenance={"folded": True})
    model_id, log = chosen()
    assert model_id == whole
    assert f"'from pth', model {whole}" in log
    assert "folded" not in log


def test_a_training_can_start_from_any_model_of_its_family(api: Api) -> None:
    dataset_id, model_id = api.ready_dataset(), api.model(origin="trained")
    job = api.post("/train", {"dataset_id": dataset_id, "init": model_id}).json()
    assert job["model_id"] == model_id
    sibling = {"dataset_id": dataset_id, "init": model_id, "architecture": "yolox-s"}
    assert api.post("/train", sibling).json()["model_id"] == model_id
    stranger = {**sibling, "architecture": "nanodet-plus-m"}
    problem = assert_problem(api.post("/train", stranger), 409, "architecture_mismatch")
    assert f"the model {model_id} is a yolox-nano, none of whose weights fits" in problem["detail"]
    classifier = api.model(task="classify", architecture="resnet18")
    assert_problem(api.post("/train", {**sibling, "init": classifier}), 409, "architecture_mismatch")
    assert_problem(api.post("/train", {"dataset_id": dataset_id, "init": "nothing"}), 404, "not_found")


def test_a_full_queue_takes_nothing_more(make_api: MakeApi) -> None:
    api = make_api(max_queued_jobs=2)
    body = {"dataset_id": api.ready_dataset()}
    assert [api.post("/train", body).status_code for _ in range(3)] == [202, 202, 503]
    answer = api.post("/train", body)
    assert_problem(answer, 503, "overloaded")
    assert int(answer.headers["retry-after"]) > 0


def test_a_body_that_is_no_json_is_refused(api: Api) -> None:
    def send(content: bytes, kind: str = "application/json") -> Any:
        return api.client.post("/train", content=content, headers={"content-type": kind})

    for content in (b"{", b"\xff", b'{"epochs": NaN}', b'{"a": 1, "a": 2}', b"[" * 9_000, b'{"a": 1e999}'):
        assert_problem(send(content), 400, "bad_request")
    for content in (b'{"dataset_id": "\\ud800"}', b'{"dataset_id": "a\\u0000"}'):
        assert_problem(send(content), 400, "bad_request")
    assert_problem(send(b"epochs=1", "application/x-www-form-urlencoded"), 422, "invalid_input")
    assert_problem(send(b"[]"), 422, "invalid_input")
    assert_problem(send(b""), 422, "invalid_input")


def test_every_architecture_shows_its_configuration(api: Api) -> None:
    names = [shown["name"] for shown in api.get("/architectures").json()]
    detectors = [*(f"yolox-{size}" for size in ("nano", "tiny", "s", "m", "l", "x")), *NANODETS]
    assert names == [*detectors, *names_for(Task.CLASSIFY)]
    for name in names:
        shown = api.get(f"/architectures/{name}").json()
        assert shown["default_config"]["architecture"] == name
        assert shown["recipe"]["optimizer"]["lr"] > 0
        assert shown["config_schema"]["properties"]["epochs"]["maximum"] == 10_000
    assert_problem(api.get("/architectures/yolo"), 404, "not_found")


def test_an_architecture_shows_what_was_published_at_each_input_size(api: Api) -> None:
    shown = api.get("/architectures/nanodet-plus-m").json()
    figures = {each["input_size"]: each for each in (shown["published"], *shown["published_elsewhere"])}
    assert {size: each["ap_val"] for size, each in figures.items()} == {416: 0.304, 320: 0.27}
    assert (shown["input_size"], shown["parameters"], shown["gflops"]) == (416, 1_197_924, 1.62)


@pytest.mark.parametrize("name", ["yolox-nano", *NANODETS])
def test_the_shown_recipe_is_a_request(api: Api, name: str) -> None:
    recipe = api.get(f"/architectures/{name}").json()["recipe"]
    answer = api.post("/train", {**recipe, "dataset_id": api.ready_dataset()})
    assert answer.status_code == 202, answer.text


def test_an_architecture_shows_the_options_of_its_family_only(api: Api) -> None:
    yolox, nanodet = (
        api.get(f"/architectures/{name}").json()["config_schema"]["$defs"]
        for name in ("yolox-s", NANODETS[0])
    )
    assert "YoloxLossConfig" in yolox.keys() - nanodet.keys()
    assert "NanoDetLossConfig" in nanodet.keys() - yolox.keys()


def test_a_field_of_another_family_is_said_to_be_one(api: Api) -> None:
    wrong = {"loss": {"box_weight": 1, "giou_wieght": 1}, "assigner": {"rule": "inbox25"}}
    body = {"dataset_id": "x", "architecture": NANODETS[0], **wrong}
    problem = assert_problem(api.post("/train", body), 422, "invalid_input")
    assert set(pointers(problem)) == {"/loss/box_weight", "/loss/giou_wieght", "/assigner/rule"}
    assert str(problem["errors"]).count("only trainings of yolox have this field") == 2
    assert "did you mean `giou_weight`?" in str(problem["errors"])


def test_a_training_of_another_family_is_stored_with_its_recipe(api: Api) -> None:
    body = {"dataset_id": api.ready_dataset(), "architecture": NANODETS[0], "epochs": 10}
    config = api.post("/train", {**body, "assigner": {"soft_centre_prior": True}}).json()["config"]
    assert (config["optimizer"]["kind"], config["optimizer"]["clip_norm"]) == ("adamw", 35.0)
    assert (config["schedule"]["kind"], config["loss"]["detach_epoch"]) == ("nanodet", 5)
    assert config["assigner"]["soft_centre_prior"] is True
