"""What a keeper makes of an exit code."""

from __future__ import annotations

import pytest

from worker.exit_codes import failure_of


@pytest.mark.parametrize(
    ("code", "hung", "expected"),
    [
        (-9, False, "killed"),
        (-11, False, "crashed"),
        (1, False, "internal_error"),
        (-15, True, "hang"),
        (66, False, "killed"),
    ],
)
def test_an_exit_code_says_what_happened(code: int, hung: bool, expected: str) -> None:
    failure = failure_of(code, hung=hung)
    assert (failure.code, failure.retryable) == (expected, True)


def test_a_crash_names_its_signal() -> None:
    assert "SIGSEGV" in failure_of(-11, hung=False).message
