"""Devices are given to one job at a time."""

from __future__ import annotations

from worker.slots import Slots


def test_a_slot_goes_to_one_job_at_a_time() -> None:
    slots = Slots(["0", "1"])
    assert (slots.take(), slots.take(), slots.take()) == ("0", "1", None)
    assert not slots.any_free
    slots.give_back("1")
    assert slots.any_free
    assert slots.take() == "1"
