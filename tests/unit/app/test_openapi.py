"""The API's description: valid, current, and complete enough that a client can be written from it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.api.openapi import describe, written
from app.main import create_app
from app.settings import Settings
from app.v2.errors import speaks_at
from detection.architectures import ARCHITECTURES
from detection.families import FAMILIES, architectures_of
from detection.families.reading import config_schema

ROOT = Path(__file__).resolve().parents[3]
PUBLIC = {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}
EVERYWHERE = {"400", "401", "403", "405", "413", "415", "422", "500", "503"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return create_app(Settings(home=tmp_path_factory.mktemp("home"), _env_file=None))


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def calls(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            yield f"{method.upper()} {path}", call


def test_it_is_valid(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()  # type: ignore[arg-type]


def test_the_written_one_is_current(document: dict[str, Any]) -> None:
    stored = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")
    assert stored == written(document), "run `make openapi`"


def test_it_can_be_written_without_a_server() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.api.openapi"], capture_output=True, text=True, check=True
    )
    assert done.stdout == (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")


def test_the_first_requests_wait_for_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FastAPI] = []

    def make(app: FastAPI) -> dict[str, Any]:
        sleep(0.05)
        made.append(app)
        return {}

    monkeypatch.setattr("app.api.openapi._document", make)
    app = FastAPI()
    describe(app)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: app.openapi(), range(4))) == [{}] * 4
    assert made == [app]


def test_every_call_says_what_it_does(document: dict[str, Any]) -> None:
    for name, call in calls(document):
        assert call["summary"], name
        assert len(call["description"]) > 20, name
        assert call["tags"], name


def test_every_call_documents_its_errors(document: dict[str, Any]) -> None:
    for name, call in calls(document):
        if name.split()[1] in PUBLIC:
            continue
        if speaks_at(name.split()[1]):
            check_errors_of_the_protocol(name, call)
            continue
        assert set(call["responses"]) >= EVERYWHERE, name
        for status, response in call["responses"].items():
            if int(status) >= 400:
                said = response["description"].split("; ")
                assert len(said) == len(set(said)), (name, said)
                content = response["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, (name, status)
                assert content["examples"], (name, status)
                for code, example in content["examples"].items():
                    assert example == {"$ref": f"#/components/examples/{code}"}
                    value = document["components"]["examples"][code]["value"]
                    assert (value["code"], value["status"]) == (code, int(status))


def check_errors_of_the_protocol(name: str, call: dict[str, Any]) -> None:
    """The Open Inference Protocol has a shape of its own, and one status for every wrong request."""
    assert set(call["responses"]) >= EVERYWHERE - {"422"}, name
    assert "422" not in call["responses"], name
    for status, response in call["responses"].items():
        if int(status) >= 400:
            shape = {"$ref": "#/components/schemas/InferenceError"}
            assert response["content"] == {"application/json": {"schema": shape}}, (name, status)


def test_every_answer_with_json_has_a_shape(document: dict[str, Any]) -> None:
    for name, call in calls(document):
        for status, response in call["responses"].items():
            for kind, content in response.get("content", {}).items():
                assert content.get("schema"), (name, status, kind)


def test_every_parameter_is_described(document: dict[str, Any]) -> None:
    for name, call in calls(document):
        for parameter in call.get("parameters", ()):
            assert parameter.get("description"), (name, parameter["name"])


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def examples_of(document: dict[str, Any], content: dict[str, Any]) -> list[Any]:
    """Return every example of a body: its own, or those of its schema."""
    schema = resolved(document, content["schema"])
    for place in (content, schema):
        if "example" in place:
            return [place["example"]]
        if "examples" in place:
            return list(place["examples"])
    return []


def check_examples(document: dict[str, Any], content: dict[str, Any], where: object) -> None:
    found = examples_of(document, content)
    assert found, where
    for each in found:
        whole = {**content["schema"], "components": document["components"]}
        Draft202012Validator(whole).validate(each)


def test_every_body_has_examples_that_are_right(document: dict[str, Any]) -> None:
    for name, call in calls(document):
        for kind, content in call.get("requestBody", {}).get("content", {}).items():
            check_examples(document, content, (name, kind))


def test_what_a_query_or_a_form_may_say_has_no_default_to_send(document: dict[str, Any]) -> None:
    """Swagger UI and generated clients send defaults; said in both places, the call is refused."""
    call = document["paths"]["/detect"]["post"]
    form = call["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    query = {each["name"]: each["schema"] for each in call["parameters"] if each["in"] == "query"}
    assert {name for name, schema in (query | form).items() if "default" in schema} == set()
    for name, default in (("score_threshold", "0.3"), ("max_detections", "100"), ("annotate", "`false`")):
        assert f"without it {default}" in query[name]["description"]
        assert f"without it {default}" in form[name]["description"]


def patterned(part: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema with a pattern."""
    if isinstance(part, dict):
        if isinstance(part.get("pattern"), str):
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from patterned(each)


def test_nobody_has_to_make_up_a_text_from_a_pattern(document: dict[str, Any]) -> None:
    bodies = [call.get("requestBody") for _, call in calls(document)]
    found = list(patterned([bodies, document["components"]["schemas"]]))
    assert found
    for schema in found:
        assert schema["examples"], schema
        for each in schema["examples"]:
            Draft202012Validator(schema).validate(each)


def test_every_answer_has_examples_that_are_right(document: dict[str, Any]) -> None:
    for name, call in calls(document):
        for status, answer in call["responses"].items():
            for kind, content in answer.get("content", {}).items():
                binary = content["schema"].get("format") == "binary"
                if int(status) < 400 and not binary:  # test_every_call_documents_its_errors sees to the rest
                    check_examples(document, content, (name, status, kind))


def test_examples_are_what_the_service_would_write(document: dict[str, Any]) -> None:
    """Without fields that no answer has: the schemas of answers are open, for the sake of clients."""
    for name, schema in document["components"]["schemas"].items():
        for each in [schema["example"]] if "example" in schema else schema.get("examples", []):
            assert each.keys() <= schema["properties"].keys() or schema.get("additionalProperties"), name


def test_every_field_is_described(document: dict[str, Any]) -> None:
    missing = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, described in schema.get("properties", {}).items()
        if not described.get("description")
    ]
    assert missing == []


def test_bodies_that_are_no_component_describe_their_fields(document: dict[str, Any]) -> None:
    for name, call in calls(document):
        for kind, content in call.get("requestBody", {}).get("content", {}).items():
            for field, described in content["schema"].get("properties", {}).items():
                assert described.get("description"), (name, kind, field)


def test_the_networks_are_named(document: dict[str, Any], app: FastAPI) -> None:
    named = [
        name
        for request in requests(document).values()
        for name in request["properties"]["architecture"]["enum"]
    ]
    assert sorted(named) == sorted(ARCHITECTURES)
    for family in FAMILIES:
        enum = config_schema(FAMILIES[family])["properties"]["architecture"]["enum"]
        assert enum == architectures_of(FAMILIES[family])


def requests(document: dict[str, Any]) -> dict[str, Any]:
    """The bodies of `POST /train`, one for each family; exactly one fits."""
    schemas = document["components"]["schemas"]
    body = document["paths"]["/train"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert len(body["oneOf"]) == len(FAMILIES)
    return {name: schemas[name] for each in body["oneOf"] if (name := each["$ref"].rpartition("/")[2])}


def test_a_training_shows_every_bound_and_default(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    train = schemas["YoloxTrainRequest"]
    assert train["additionalProperties"] is False
    assert train["required"] == ["dataset_id"]
    epochs = train["properties"]["epochs"]
    assert (epochs["minimum"], epochs["maximum"], epochs["default"]) == (1, 10_000, 300)
    assert train["properties"]["input_size"]["description"].startswith("Side of the square")
    assert schemas["OptimizerConfig"]["properties"]["kind"]["default"] == "sgd"
    assert schemas["NanoDetOptimizerConfig"]["properties"]["clip_norm"]["default"] == 35
    assert schemas["NanoDetTrainRequest"]["required"] == ["architecture", "dataset_id"]
    for part in (*requests(document), *(name for name in schemas if name.endswith("Config"))):
        for name, schema in schemas[part]["properties"].items():
            may_be_null = {"type": "null"} in schema.get("anyOf", ())  # FastAPI leaves out a default of null
            required = name in schemas[part].get("required", ())
            assert "default" in schema or may_be_null or "$ref" in schema or required, (part, name)


def test_no_address_of_anybody_is_in_it(document: dict[str, Any]) -> None:
    assert "http://" not in json.dumps(document)
    assert "https://" not in json.dumps(document)


def test_keys_are_explained(document: dict[str, Any]) -> None:
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    for name, call in calls(document):
        expected = [] if name.split()[1] in PUBLIC else [{"bearer": []}, {"header": []}, {}]
        assert call.get("security", []) == expected, name
