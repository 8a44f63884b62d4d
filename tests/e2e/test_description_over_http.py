"""The API's description against the real server: some requests that it allows or forbids, over HTTP.

Hundreds of them are made in one process in tests/integration/api; here it is the server with all that is
around the application that must never answer 5xx, and broker, engine and workers behind it.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis

from tests.described_calls import call_as_described
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
    engine = serve.pid_of("app.engine")
    num_cases = call_as_described(schema, cases_per_call=CASES_PER_CALL)
    assert num_cases >= 60
    assert serve.http.get("/readyz").status_code == 200
    assert serve.pid_of("app.engine") == engine
