"""The Open Inference Protocol beside the rest of the API: models, keys, limits and errors are the same."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from app.errors import EngineUnavailableError, OverloadedError
from app.keys.service import Scope, create_key
from tests.integration.api.conftest import Api, MakeApi

LENGTH = "Inference-Header-Content-Length"
PICTURE = b"any picture; the fake engine does not look"


def body(*pictures: bytes, **request: Any) -> tuple[bytes, dict[str, str]]:
    """Return a request with its tensor as bytes behind the JSON, and the header that says where."""
    content = b"".join(struct.pack("<I", len(each)) + each for each in pictures)
    tensor = {
        "name": "image",
        "shape": [len(pictures)],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(content)},
    }
    text = json.dumps({"inputs": [tensor], **request}).encode()
    return text + content, {LENGTH: str(len(text))}


def infer(api: Api, model: str = "production", *, version: str = "", **request: Any) -> Any:
    content, headers = body(PICTURE, PICTURE, **request)
    path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "")
    return api.client.post(f"{path}/infer", content=content, headers=headers)


def error(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert list(answer.json()) == ["error"]
    text: str = answer.json()["error"]
    assert text
    return text


def test_a_model_is_asked_by_alias_or_id_and_says_which_it_was(api: Api) -> None:
    old, new = api.model(alias="production"), api.model()
    for name, meant in (("production", old), (old, old), (new, new)):
        answer = infer(api, name, id="mine")
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-harrier-model"] == meant
        assert answer.headers["server-timing"] == (
            "decode;dur=2.000, queue;dur=0.000, preprocess;dur=2.000, inference;dur=10.000, "
            "postprocess;dur=1.000, classify;dur=0.000"
        )
        told = answer.json()
        assert (told["model_name"], told["model_version"], told["id"]) == (name, meant, "mine")
        outputs = {output["name"]: output for output in told["outputs"]}
        assert outputs["num_detections"]["data"] == [1, 1]
        assert outputs["boxes"]["shape"] == [2, 1, 4]
        assert outputs["boxes"]["data"] == [1.0, 2.0, 30.0, 40.0] * 2
        assert outputs["labels"]["data"] == ["cat", "cat"]
    api.client.patch(f"/models/{new}", json={"alias": "production"})
    assert infer(api).json()["model_version"] == new


def test_a_version_is_the_id_that_the_name_must_have(api: Api) -> None:
    old, new = api.model(alias="production"), api.model()
    assert infer(api, version=old).json()["model_version"] == old
    assert old in error(infer(api, version=new), 404)
    assert old in error(infer(api, version="1"), 404)
    assert api.get(f"/v2/models/production/versions/{old}").json()["versions"] == [old]
    assert api.get(f"/v2/models/production/versions/{old}/ready").json()["ready"] is True
    assert api.get(f"/v2/models/production/versions/{old}/config").json()["name"] == "production"


def test_outputs_are_those_that_were_wanted_in_that_order(api: Api) -> None:
    api.model(alias="production")
    wanted = [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "num_detections"}]
    answer = infer(api, outputs=wanted)
    length = int(answer.headers[LENGTH])
    assert answer.headers["content-type"] == "application/octet-stream"
    scores, counts = json.loads(answer.content[:length])["outputs"]
    assert (scores["name"], scores["parameters"]) == ("scores", {"binary_data_size": 8})
    assert "data" not in scores
    assert (counts["name"], counts["data"]) == ("num_detections", [1, 1])
    assert struct.unpack("<2f", answer.content[length:]) == pytest.approx((0.9, 0.9))


def test_what_there_is_is_listed(api: Api) -> None:
    api.model(alias="production")
    api.model(task="classify")
    other = api.model()
    names = [entry["name"] for entry in api.post("/v2/repository/index").json()]
    assert len(names) == 3
    assert names[0] == other
    assert names[2] == "production"
    assert api.get("/v2").json()["extensions"] == ["binary_tensor_data", "model_configuration"]
    told = api.get("/v2/models/production").json()
    assert [tensor["name"] for tensor in told["inputs"]] == ["image"]
    assert {"name": "boxes", "datatype": "FP32", "shape": [-1, -1, 4]} in told["outputs"]
    configured = api.get("/v2/models/production/config").json()
    assert configured["input"] == [{"name": "image", "data_type": "TYPE_STRING", "dims": [-1]}]


def test_errors_have_the_protocols_shape(api: Api) -> None:
    classifier = api.model(task="classify", alias="second")
    api.model(alias="production")
    assert "'nobody'" in error(infer(api, "nobody"), 404)
    assert "nobody" in error(api.get("/v2/models/nobody/ready"), 404)
    assert classifier in error(infer(api, "second"), 409)
    assert "does not exist" in error(api.get("/v2/systemsharedmemory/status"), 404)
    assert "GET" in error(api.client.delete("/v2/models/production"), 405)
    assert "score_threshold" in error(infer(api, parameters={"score_threshold": 3}), 400)
    assert "'owl'" in error(infer(api, parameters={"classes": "cat,owl"}), 400)
    content, headers = body(PICTURE)
    packed = {**headers, "Content-Encoding": "gzip"}
    error(api.client.post("/v2/models/production/infer", content=content, headers=packed), 415)
    assert "unknown" not in error(api.get("/v2?verbose=1"), 400)


def test_an_engine_that_is_away_is_a_503_with_a_time_to_come_back(api: Api) -> None:
    api.model(alias="production")
    for kind, after in ((EngineUnavailableError, "5"), (OverloadedError, "1")):
        api.engine.error = kind("not now", retry_after_s=int(after))
        answer = infer(api)
        assert error(answer, 503) == "not now"
        assert answer.headers["retry-after"] == after
        error(api.get("/v2/models/production/ready"), 503)
        assert "engine" in error(api.get("/v2/health/ready"), 503)
    assert api.get("/v2/health/live").json() == {"live": True}
    api.engine.error = None
    assert api.get("/v2/health/ready").json() == {"ready": True}


def test_keys_and_scopes_are_those_of_detect(make_api: MakeApi) -> None:
    api = make_api(require_keys=True)
    api.model(alias="production")
    with api.session() as session:
        keys = {
            scope: create_key(session, scope, [scope]) for scope in (Scope.READ, Scope.DETECT, Scope.TRAIN)
        }
    content, headers = body(PICTURE)

    def status(scope: Scope | None, method: str, path: str) -> int:
        key = {"Authorization": f"Bearer {keys[scope]}"} if scope else {}
        answer = api.client.request(method, path, content=content, headers={**headers, **key})
        if answer.status_code != 200:
            error(answer, answer.status_code)
        return int(answer.status_code)

    path = "/v2/models/production"
    assert status(None, "POST", f"{path}/infer") == 401
    assert status(Scope.READ, "POST", f"{path}/infer") == 403
    assert status(Scope.DETECT, "POST", f"{path}/infer") == 200
    assert [status(scope, "GET", path) for scope in keys] == [200, 200, 403]
    assert status(None, "GET", "/v2/health/ready") == 200


def test_bodies_may_be_as_large_as_those_of_detect_and_no_larger(make_api: MakeApi) -> None:
    api = make_api(max_json_bytes=1024 * 1024, max_detect_bytes=3 * 1024 * 1024, max_detect_images=4)
    api.model(alias="production")
    content, headers = body(bytes(2 * 1024 * 1024))
    path = "/v2/models/production/infer"
    assert api.client.post(path, content=content, headers=headers).status_code == 200
    content, headers = body(bytes(3 * 1024 * 1024))
    assert "bytes may be sent" in error(api.client.post(path, content=content, headers=headers), 413)
    content, headers = body(*[PICTURE] * 5)
    assert "at most 4 pictures" in error(api.client.post(path, content=content, headers=headers), 413)
    content, headers = body(b"x", id="x" * 1024 * 1024)
    assert api.client.post("/v2/repository/index", content=content).status_code == 413
