"""A training's series beside its checkpoints."""

from __future__ import annotations

from pathlib import Path

from worker.journal import Journal


def test_a_journal_ends_where_the_training_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "series.jsonl")
    journal.cut_after(0)
    assert list(journal.rows()) == []
    for step in (1, 2, 3, 4):
        journal.add(step, 1, {"loss": 1.0 / step})
        if step == 2:
            journal.add(step, 1, {"loss": 0.5, "ap": 0.25})
    journal.cut_after(3)
    assert list(journal.rows()) == [
        (1, 1, {"loss": 1.0}),
        (2, 1, {"loss": 0.5, "ap": 0.25}),
        (3, 1, {"loss": 1 / 3}),
    ]
    journal.add(4, 2, {"loss": 9.0})
    assert [row[0] for row in journal.rows()] == [1, 2, 3, 4]


def test_a_journal_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "series.jsonl")
    journal.add(1, 1, {"loss": 1.0})
    with (tmp_path / "series.jsonl").open("ab") as file:
        file.write(b'[2,1,{"lo')
    journal.cut_after(5)
    journal.add(2, 1, {"loss": 2.0})
    assert list(journal.rows()) == [(1, 1, {"loss": 1.0}), (2, 1, {"loss": 2.0})]
