"""Hundreds of requests that the API's description allows or forbids: no 5xx, every answer as described.

In this process, where a case costs milliseconds and begins with a home in which there is one of everything;
tests/e2e/test_description_over_http.py sends some to a real server.
"""

from __future__ import annotations

import random
from typing import Any

import hypothesis
import schemathesis
from schemathesis import Case, HookContext
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.python import asgi

from app.jobs import protocol
from tests.integration.api.conftest import HERE, Api, MakeApi

load_all_checks()
WANTED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "negative_data_rejection",
)
CASES_PER_CALL = 20
ENDLESS = "/events"
"""The one call that no generated case can make: its answer has no end, so a client that reads answers as a
whole waits for ever. test_events.py reads it event by event."""


def furnish(api: Api) -> dict[str, str]:
    """Put something of everything in place; return their ids by the names of the path parameters."""
    dataset_id, model_id = api.ready_dataset(), api.model({"onnx": b"x", "safetensors": b"y"})
    job_id = api.job(dataset_id=dataset_id, model_id=model_id)
    with api.session() as session:
        protocol.request_cancel(session, job_id)
    return {
        "dataset_id": dataset_id,
        "model_id": model_id,
        "job_id": job_id,
        "evaluation_id": api.evaluation(model_id),
        "image_id": "im001",
        "name": "yolox-nano",
    }


def described(api: Api, ids: dict[str, str]) -> Any:
    schema = schemathesis.openapi.from_dict(api.app.openapi())
    schema.app = api.app
    chance = random.Random(0)

    @schema.hook
    def map_path_parameters(context: HookContext, parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        """Half of the requests are about things that exist; those that delete are not."""
        if context.operation.method.upper() == "DELETE" or not parameters or chance.random() < 0.5:
            return parameters
        return {name: ids.get(name, value) for name, value in parameters.items()}

    return schema


def operations(schema: Any) -> list[Any]:
    """Return all calls; streams of jobs first, while the known job has ended and is not resumed yet."""
    found = [result.ok() for result in schema.get_all_operations()]
    chosen = [operation for operation in found if operation.path != ENDLESS]
    return sorted(chosen, key=lambda operation: not operation.path.endswith("/events"))


def test_the_api_keeps_to_its_description(make_api: MakeApi) -> None:
    api = make_api(max_queued_jobs=10**6, started=False)  # the client below starts it
    schema = described(api, furnish(api))
    checks = [CHECKS.get_one(name) for name in WANTED]
    num_cases = 0

    def attack(operation: Any) -> None:
        @hypothesis.settings(
            max_examples=CASES_PER_CALL,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def once(case: Case) -> None:
            nonlocal num_cases
            num_cases += 1
            case.call_and_validate(checks=checks, session=client, base_url=HERE)

        once()

    with asgi.get_client(api.app) as client:
        for operation in operations(schema):
            attack(operation)
    assert num_cases >= 500
