"""Scratch folders go with their attempt."""

from __future__ import annotations

from app.settings import Settings
from worker.scratch import jobs_scratch, remove_scratch, scratch_folder


def test_an_ended_attempt_takes_earlier_ones_along_but_no_later_one(settings: Settings) -> None:
    for fence in (1, 3, 5):
        scratch_folder(settings, "job", fence).mkdir(parents=True)
    scratch_folder(settings, "other", 1).mkdir()
    remove_scratch(settings, "job", 3)
    assert sorted(path.name for path in jobs_scratch(settings).iterdir()) == ["job-5", "other-1"]
