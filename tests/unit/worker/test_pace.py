"""How long the rest of a job takes: told from what was timed, and not before."""

from __future__ import annotations

from worker.pace import Pace


def test_the_rest_takes_as_long_in_proportion_as_what_is_done() -> None:
    now = 10.0
    pace = Pace(clock=lambda: now)
    now = 16.0
    assert pace.eta_s(0.25, 0.75) == 18.0
    assert pace.eta_s(3, 1) == 2.0


def test_nothing_is_told_without_a_measurement_or_without_a_rest() -> None:
    now = 0.0
    pace = Pace(clock=lambda: now)
    now = 0.5
    assert pace.eta_s(1, 99) is None, "too early"
    now = 5.0
    assert pace.eta_s(0, 1) is None
    assert pace.eta_s(1, 0) is None
