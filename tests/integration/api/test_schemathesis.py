"""Hundreds of requests that the API's description allows or forbids: no 5xx, every answer as described.

In this process, where a case costs milliseconds and begins with a home in which there is one of everything;
tests/e2e/test_description_over_http.py sends some to a real server.
"""

from __future__ import annotations

import random
from typing import Any

import schemathesis
from schemathesis import HookContext
from schemathesis.python import asgi

from app.jobs import protocol
from tests.described_calls import call_as_described
from tests.integration.api.conftest import HERE, Api, MakeApi

CASES_PER_CALL = 20


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


def test_the_api_keeps_to_its_description(make_api: MakeApi) -> None:
    api = make_api(max_queued_jobs=10**6, started=False)  # the client below starts it
    schema = described(api, furnish(api))
    with asgi.get_client(api.app) as client:
        num_cases = call_as_described(schema, cases_per_call=CASES_PER_CALL, session=client, base_url=HERE)
    assert num_cases >= 500
