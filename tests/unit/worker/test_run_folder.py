"""The folder that is handed from attempt to attempt."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.run_folder import take_over


def test_a_run_folder_is_handed_on_with_its_content(tmp_path: Path) -> None:
    first = take_over(tmp_path / "job", 1)
    (first / "checkpoint").write_text("step 5")
    second = take_over(tmp_path / "job", 3)
    assert (second / "checkpoint").read_text() == "step 5"
    with pytest.raises(FileNotFoundError):
        (first / "checkpoint").write_text("a paused attempt wakes up")


def test_a_run_folder_that_an_old_attempt_made_late_is_passed_over(tmp_path: Path) -> None:
    (take_over(tmp_path / "job", 3) / "checkpoint").write_text("step 9")
    (tmp_path / "job" / "1").mkdir()
    fifth = take_over(tmp_path / "job", 5)
    assert (fifth / "checkpoint").read_text() == "step 9"
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["5"]
