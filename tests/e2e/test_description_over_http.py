"""The API's description against the real server: some requests that it allows or forbids, over HTTP.

Hundreds of them are made in one process in tests/integration/api; here it is the server with all that is
around the application that must never answer 5xx, and broker, engine and workers behind it.
"""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import Case
from schemathesis.checks import CHECKS

from tests.integration.api.test_schemathesis import WANTED, operations
from tests.serving import Serve

CASES_PER_CALL = 2


@pytest.fixture(scope="module")
def schema(serve: Serve) -> Any:
    """As the server itself describes it."""
    address = str(serve.http.base_url)
    loaded = schemathesis.openapi.from_dict(serve.http.get("/openapi.json").json())
    loaded.config.update(base_url=address)
    return loaded


def test_the_server_keeps_to_its_description(serve: Serve, schema: Any) -> None:
    checks = [CHECKS.get_one(name) for name in WANTED]
    engine, num_cases = serve.pid_of("app.engine"), 0

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
            case.call_and_validate(checks=checks)

        once()

    for operation in operations(schema):
        attack(operation)
    assert num_cases >= 60
    assert serve.http.get("/readyz").status_code == 200
    assert serve.pid_of("app.engine") == engine
