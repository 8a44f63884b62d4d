"""Models over HTTP: names, aliases, downloads, imports, exports, evaluations."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import torch

from app.database.tables import Evaluation, Job, Model, ModelFile
from app.jobs.states import JobKind, Queue
from detection.data.records import BoxRecord, ImageRecord, Split
from detection.detections import Detections
from detection.evaluation.curves import detail_detections
from tests.integration.api.conftest import Api, MakeApi, assert_problem, pointers

WEIGHTS = os.urandom(700_000)


def upload(api: Api, content: bytes = WEIGHTS, file_name: str = "nano.pth", **fields: str) -> Any:
    files = {"weights": (file_name, content, "application/octet-stream")}
    return api.client.post("/models/import", files=files, data=fields)


def test_a_model_shows_what_it_is(api: Api) -> None:
    model_id = api.model({"onnx": b"graph", "safetensors": b"weights"}, metrics={"ap": 0.5, "split": "val"})
    model = api.get(f"/models/{model_id}").json()
    assert [(file["format"], file["size_bytes"]) for file in model["files"]] == [
        ("onnx", 5),
        ("safetensors", 7),
    ]
    assert (model["architecture"], model["classes"], model["input_size"]) == (
        "yolox-nano",
        ["cat", "dog"],
        [416, 416],
    )
    assert model["metrics"]["ap"] == 0.5
    assert model["metrics"]["split"] == "val"
    assert model["links"]["detect"] == f"/detect?model={model_id}"
    assert_problem(api.get("/models/nothing"), 404, "not_found")


def test_models_are_listed_newest_first(api: Api) -> None:
    ids = [api.model({"onnx": b"x"}) for _ in range(3)][::-1]
    first = api.get("/models?limit=2").json()
    second = api.get("/models", params={"cursor": first["next_cursor"]}).json()
    assert [model["id"] for model in first["items"] + second["items"]] == ids
    assert all(model["files"] for model in first["items"])


def test_an_alias_where_an_id_is_needed_is_told_from_nothing(api: Api) -> None:
    model = api.model()
    api.client.patch(f"/models/{model}", json={"alias": "production"})
    problem = assert_problem(api.client.post("/models/production/plan"), 404, "not_found")
    assert problem["detail"].endswith(f"an id is needed, and that alias means {model} now")
    assert_problem(api.client.get("/models/nothing"), 404, "not_found")


def test_an_alias_moves(api: Api) -> None:
    first, second = api.model(), api.model()
    api.client.patch(f"/models/{first}", json={"alias": "production"})
    moved = api.client.patch(f"/models/{second}", json={"alias": "production", "name": "better"}).json()
    assert (moved["alias"], moved["name"], moved["links"]["detect"]) == (
        "production",
        "better",
        "/detect?model=production",
    )
    assert api.get(f"/models/{first}").json()["alias"] is None
    again = api.client.patch(f"/models/{second}", json={"alias": "production"})
    assert again.json()["alias"] == "production"
    assert api.client.patch(f"/models/{second}", json={"name": "kept"}).json()["alias"] == "production"
    assert api.client.patch(f"/models/{second}", json={"alias": None}).json()["alias"] is None


@pytest.mark.parametrize(
    ("patch", "pointer"),
    [
        ({"alias": "Not An Alias"}, "/alias"),
        ({"alias": ""}, "/alias"),
        ({"alias": "0" * 8}, "/alias"),
        ({"name": None}, "/name"),
        ({"name": " "}, "/name"),
        ({"classes": []}, "/classes"),
    ],
)
def test_a_wrong_change_is_named(api: Api, patch: dict[str, Any], pointer: str) -> None:
    answer = api.client.patch(f"/models/{api.model()}", json=patch)
    assert pointers(assert_problem(answer, 422, "invalid_input")) == [pointer]


def test_weights_are_downloaded_whole(api: Api) -> None:
    model_id = api.model({"safetensors": WEIGHTS, "onnx": b"graph"})
    answer = api.get(f"/models/{model_id}/weights")
    assert answer.content == WEIGHTS
    assert answer.headers["content-length"] == str(len(WEIGHTS))
    assert answer.headers["accept-ranges"] == "bytes"
    name = f'attachment; filename="yolox-nano-{model_id}.safetensors"'
    assert answer.headers["content-disposition"] == name
    assert api.get(f"/models/{model_id}/weights?format=onnx").content == b"graph"
    etag = {"If-None-Match": answer.headers["etag"]}
    assert api.get(f"/models/{model_id}/weights", headers=etag).status_code == 304


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=699990-", 699_990, 700_000),
        ("bytes=-5", 699_995, 700_000),
        ("bytes=-9999999", 0, 700_000),
        ("bytes=699990-9999999", 699_990, 700_000),
    ],
)
def test_a_range_is_part_of_the_file(api: Api, header: str, start: int, stop: int) -> None:
    model_id = api.model({"safetensors": WEIGHTS})
    answer = api.get(f"/models/{model_id}/weights", headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == WEIGHTS[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/700000"


@pytest.mark.parametrize(
    "header",
    [
        "bytes=0-0,1-1",
        "bytes=" + ",".join("0-0" for _ in range(500)),
        "bytes=9-1",
        "bytes=x-y",
        "lines=1-2",
        "bytes=-",
    ],
)
def test_a_range_we_do_not_serve_gives_the_whole(api: Api, header: str) -> None:
    model_id = api.model({"safetensors": WEIGHTS})
    answer = api.get(f"/models/{model_id}/weights", headers={"Range": header})
    assert (answer.status_code, answer.content) == (200, WEIGHTS)


@pytest.mark.parametrize("header", ["bytes=700000-", "bytes=9999999999-99999999999", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(api: Api, header: str) -> None:
    model_id = api.model({"safetensors": WEIGHTS})
    answer = api.get(f"/models/{model_id}/weights", headers={"Range": header})
    assert_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */700000"


def test_a_download_goes_on_only_with_the_same_file(api: Api) -> None:
    model_id = api.model({"safetensors": WEIGHTS})
    etag = api.get(f"/models/{model_id}/weights").headers["etag"]
    same = {"Range": "bytes=5-9", "If-Range": etag}
    other = {"Range": "bytes=5-9", "If-Range": '"another"'}
    assert api.get(f"/models/{model_id}/weights", headers=same).status_code == 206
    assert api.get(f"/models/{model_id}/weights", headers=other).content == WEIGHTS


def test_a_file_that_was_not_made_shows_the_way(api: Api) -> None:
    model_id = api.model({"safetensors": b"x"})
    problem = assert_problem(api.get(f"/models/{model_id}/weights?format=torch"), 409, "file_not_made")
    assert problem["links"] == {"export": f"/models/{model_id}/export"}
    assert_problem(api.get(f"/models/{model_id}/weights?format=tflite"), 422, "invalid_input")
    assert_problem(api.get("/models/nothing/weights"), 404, "not_found")


def test_an_import_is_a_job_with_the_file(api: Api) -> None:
    answer = upload(
        api,
        name="coco",
        architecture="yolox-nano",
        classes='["a", "b"]',
        input_convention="yolox-legacy",
    )
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert (job["kind"], job["queue"]) == ("model-import", "cpu")
    config = job["config"]
    assert len(config.pop("sha256")) == 64
    assert config == {
        "upload_key": f"uploads/{job['id']}/weights",
        "name": "coco",
        "architecture": "yolox-nano",
        "classes": ["a", "b"],
        "input_convention": "yolox-legacy",
        "file_name": "nano.pth",
        "size_bytes": 700_000,
    }
    with api.state.storage.open(f"uploads/{job['id']}/weights") as stored:
        assert stored.read() == WEIGHTS
    assert api.bell.rings == [(job["id"], Queue.CPU)]


def test_an_import_needs_only_the_file(api: Api) -> None:
    config = upload(api).json()["config"]
    assert config["name"] == "nano"
    assert config["architecture"] is config["classes"] is config["input_convention"] is None


def test_a_convention_can_be_spelled_out(api: Api) -> None:
    convention = {"order": "rgb", "scale": 0.00392, "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}
    config = upload(api, input_convention=json.dumps(convention)).json()["config"]
    assert config["input_convention"] == {**convention, "resize": "letterbox", "pad_value": 114.0}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture", "resnet"),
        ("classes", "[]"),
        ("classes", '["a", "a"]'),
        ("classes", '["a\\u0000"]'),
        ("classes", "{}"),
        ("input_convention", "bgr"),
        ("input_convention", '{"order": "bgra"}'),
        ("input_convention", '{"std": [0, 1, 1]}'),
        ("input_convention", '{"mean": [NaN, 0, 0]}'),
        ("path", "../../x"),
    ],
)
def test_a_wrong_field_is_named(api: Api, field: str, value: str) -> None:
    problem = assert_problem(upload(api, **{field: value}), 422, "invalid_input")
    assert pointers(problem)[0].startswith(f"/{field}")
    assert list(api.state.storage.keys("uploads/")) == []
    assert api.rows(Job) == []


def test_an_empty_or_large_file_is_refused(make_api: MakeApi) -> None:
    api = make_api(max_weights_bytes=1000)
    assert_problem(upload(api, b""), 415, "unsupported_media")
    assert_problem(upload(api, b"x" * 1001), 413, "payload_too_large")


def test_a_full_queue_takes_no_import(make_api: MakeApi) -> None:
    api = make_api(max_queued_jobs=1)
    assert upload(api).status_code == 202
    assert_problem(upload(api), 503, "overloaded")
    assert len(list(api.state.storage.keys("uploads/"))) == 1


def test_what_is_there_needs_no_export(api: Api) -> None:
    model_id = api.model({"onnx": b"x"})
    job = api.post(f"/models/{model_id}/export", {"format": "onnx"}).json()
    assert (job["kind"], job["status"], job["stage"]) == ("export", "succeeded", "done")
    assert job["result"] == {"model_id": model_id, "format": "onnx"}
    assert api.bell.rings == []


def test_another_format_is_a_job(api: Api) -> None:
    model_id = api.model({"onnx": b"x"})
    answer = api.post(f"/models/{model_id}/export", {"format": "torch"})
    job = answer.json()
    assert answer.status_code == 202
    assert job["config"] == {"model_id": model_id, "format": "torch"}
    assert api.bell.rings == [(job["id"], Queue.CPU)]
    assert_problem(api.post(f"/models/{model_id}/export", {"format": "tflite"}), 422, "invalid_input")
    assert_problem(api.post("/models/nothing/export", {"format": "onnx"}), 404, "not_found")


def test_an_evaluation_is_a_job(api: Api) -> None:
    model_id, dataset_id = api.model(), api.ready_dataset()
    job = api.post(f"/models/{model_id}/evaluate", {"dataset_id": dataset_id}).json()
    assert (job["kind"], job["queue"]) == ("evaluate", "gpu")
    model, dataset = api.get(f"/models/{model_id}").json(), api.get(f"/datasets/{dataset_id}").json()
    assert job["name"] == f"evaluation of {model['name']} on {dataset['name']}"
    assert job["config"] == {
        "model_id": model_id,
        "dataset_id": dataset_id,
        "split": "val",
        "device": "auto",
        "tta": None,
    }
    assert (job["model_id"], job["dataset_id"]) == (model_id, dataset_id)


def test_an_evaluation_may_ask_for_test_time_augmentation(api: Api) -> None:
    dataset_id = api.ready_dataset()
    here = f"/models/{api.model()}/evaluate"
    usual = api.post(here, {"dataset_id": dataset_id, "tta": True}).json()
    assert usual["config"]["tta"] == {"scales": [1.0, 0.83, 0.67], "flips": ["none", "lr", "none"]}
    chosen = api.post(here, {"dataset_id": dataset_id, "tta": {"scales": [1, 1.3]}}).json()
    assert chosen["config"]["tta"] == {"scales": [1.0, 1.3], "flips": ["none", "none"]}
    for tta in ("true", 1, {"scales": []}, {"scales": [5]}, {"scales": [1], "flips": ["lr", "ud"]}, {}):
        assert_problem(api.post(here, {"dataset_id": dataset_id, "tta": tta}), 422, "invalid_input")


def test_a_classifier_is_not_measured_in_passes(api: Api) -> None:
    here = f"/models/{api.model(task='classify', architecture='resnet18')}/evaluate"
    problem = assert_problem(api.post(here, {"dataset_id": "any", "tta": True}), 422, "invalid_input")
    assert pointers(problem) == ["/tta"]


def test_an_evaluation_needs_pictures_and_a_common_class(api: Api) -> None:
    model_id, dataset_id = api.model(), api.ready_dataset()
    here = f"/models/{model_id}/evaluate"
    assert_problem(api.post(here, {"dataset_id": dataset_id, "split": "test"}), 409, "empty_split")
    strangers = api.ready_dataset(classes=["car"])
    assert_problem(api.post(here, {"dataset_id": strangers}), 409, "no_common_classes")
    assert_problem(api.post(here, {"dataset_id": "nothing"}), 404, "not_found")
    assert_problem(api.post(here, {"dataset_id": api.upload().json()["id"]}), 409, "dataset_not_ready")
    assert_problem(api.post("/models/x/evaluate", {"dataset_id": dataset_id}), 404, "not_found")
    assert_problem(api.post(here, {"dataset_id": dataset_id, "device": "cuda"}), 422, "invalid_input")


def test_evaluations_are_listed_and_shown(api: Api) -> None:
    model_id, other = api.model(), api.model()
    ids = [api.evaluation(model_id, metrics={"ap": 0.25, "per_class": {"cat": 0.5}}) for _ in range(3)][::-1]
    api.evaluation(other)
    page = api.get(f"/models/{model_id}/evaluations?limit=2").json()
    rest = api.get(f"/models/{model_id}/evaluations", params={"cursor": page["next_cursor"]}).json()
    assert [item["id"] for item in page["items"] + rest["items"]] == ids
    shown = api.get(f"/evaluations/{ids[0]}").json()
    assert shown["metrics"] == {"ap": 0.25, "per_class": {"cat": 0.5}}
    assert shown["links"]["model"] == f"/models/{model_id}"
    assert shown["tta"] is None
    assert_problem(api.get("/evaluations/nothing"), 404, "not_found")
    assert_problem(api.get("/models/nothing/evaluations"), 404, "not_found")


def test_an_evaluation_shows_what_augmentation_changed(api: Api) -> None:
    plain, augmented = ({"ap": ap, "ap50": ap, "ap75": None} for ap in (0.5, 0.75))
    tta = {
        "passes": [{"scale": 1.0, "flip": "none"}, {"scale": 0.83, "flip": "lr"}],
        "plain": plain,
        "augmented": augmented,
        "difference": {"ap": 0.25, "ap50": 0.25, "ap75": None},
    }
    evaluation_id = api.evaluation(model_id := api.model(), tta=tta)
    assert api.get(f"/evaluations/{evaluation_id}").json()["tta"] == tta
    assert api.get(f"/models/{model_id}/evaluations").json()["items"][0]["tta"] == tta


def test_one_evaluation_shows_its_curves_and_what_was_taken_for_what(api: Api) -> None:
    found = Detections(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0.9]), torch.tensor([0]))
    box = BoxRecord(class_id=0, x1=0, y1=0, x2=10, y2=10)
    image = ImageRecord(id="a", file_name="a.jpg", width=20, height=20, split=Split.VAL, boxes=(box,))
    made = detail_detections([image], [found], ["cat"], score_threshold=0.3)
    assert made is not None
    evaluation_id = api.evaluation(model_id := api.model(), metrics={"ap": 1.0}, **made.as_json())
    shown = api.get(f"/evaluations/{evaluation_id}").json()
    assert shown["confusion_matrix"]["counts"] == [[1, 0], [0, 0]]
    assert shown["curves"]["per_class"][0]["best_f1"] == 1.0
    assert len(shown["curves"]["mean"]["f1"]) == len(shown["curves"]["score_thresholds"])
    listed = api.get(f"/models/{model_id}/evaluations").json()["items"][0]
    assert "curves" not in listed
    old = api.get(f"/evaluations/{api.evaluation(model_id)}").json()
    assert (old["curves"], old["confusion_matrix"]) == (None, None)


def test_a_deleted_model_leaves_nothing(api: Api) -> None:
    model_id = api.model({"onnx": b"x", "safetensors": b"y"})
    api.evaluation(model_id)
    assert api.client.delete(f"/models/{model_id}").status_code == 204
    assert_problem(api.get(f"/models/{model_id}"), 404, "not_found")
    assert_problem(api.client.delete(f"/models/{model_id}"), 404, "not_found")
    assert [*api.rows(Model), *api.rows(ModelFile), *api.rows(Evaluation)] == []
    assert list(api.state.storage.keys("models/")) == []


def test_a_model_in_use_stays(api: Api) -> None:
    model_id = api.model()
    job_id = api.job(JobKind.EXPORT, model_id=model_id)
    problem = assert_problem(api.client.delete(f"/models/{model_id}"), 409, "in_use")
    assert problem["links"] == {"job": f"/jobs/{job_id}"}
    api.post(f"/jobs/{job_id}/cancel")
    assert api.client.delete(f"/models/{model_id}").status_code == 204


def test_changes_of_models_are_events(api: Api) -> None:
    model_id = api.model()
    api.client.patch(f"/models/{model_id}", json={"alias": "production"})
    api.client.delete(f"/models/{model_id}")
    assert [event["status"] for event in api.events(f"models/{model_id}")] == ["changed", "deleted"]


def test_links_are_what_can_be_asked_of_a_model(api: Api) -> None:
    def links(**values: str) -> set[str]:
        return set(api.get(f"/models/{api.model(**values)}").json()["links"]) & {"prune", "plan", "reproduce"}

    assert links(origin="trained") == {"prune", "plan", "reproduce"}
    assert links(origin="imported") == {"prune", "plan"}
    assert links(origin="trained", task="classify", architecture="resnet18") == {"reproduce"}
