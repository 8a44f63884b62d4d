"""Requests made from the API's own description, and what every answer to them is held to."""

from __future__ import annotations

from typing import Any

import hypothesis
from schemathesis import Case
from schemathesis.checks import CHECKS, load_all_checks

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
ENDLESS = "/events"
"""The one call that no generated case can make: its answer has no end, so a client that reads answers as a
whole waits for ever. test_events.py reads it event by event."""


def call_as_described(schema: Any, *, cases_per_call: int, **how: Any) -> int:
    """Make some requests of every call that the schema describes; return how many they were.

    Args:
        how: what `Case.call_and_validate` needs to reach the server.
    """
    checks = [CHECKS.get_one(name) for name in WANTED]
    num_cases = 0

    def call(operation: Any) -> None:
        @hypothesis.settings(
            max_examples=cases_per_call,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def once(case: Case) -> None:
            nonlocal num_cases
            num_cases += 1
            case.call_and_validate(checks=checks, **how)

        once()

    for operation in _operations(schema):
        call(operation)
    return num_cases


def _operations(schema: Any) -> list[Any]:
    """Return all calls; streams of jobs first, while the known job has ended and is not resumed yet."""
    found = [result.ok() for result in schema.get_all_operations()]
    chosen = [operation for operation in found if operation.path != ENDLESS]
    return sorted(chosen, key=lambda operation: not operation.path.endswith("/events"))
