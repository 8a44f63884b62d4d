"""How a metric series is written: many rows at once, the later one of a step in the place of the earlier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from app.database.tables import JobMetric

MEASURED = "ap"
"""What the row of a step has when the weights after that step were evaluated."""
ROWS_PER_STATEMENT = 1000
"""Each row binds a few values, and a statement may bind only so many."""

SeriesRow = tuple[int, int, Mapping[str, Any]]
"""Step, epoch counted from 1, values."""


def replace_series(session: Session, job_id: str, rows: Iterable[SeriesRow]) -> Sequence[SeriesRow]:
    """Write rows; return those worth a word: the newest, and every one with an evaluation. In order."""
    newest = {row[0]: row for row in rows}
    steps = sorted(newest)
    for start in range(0, len(steps), ROWS_PER_STATEMENT):
        _replace(session, job_id, [newest[step] for step in steps[start : start + ROWS_PER_STATEMENT]])
    return [newest[step] for step in steps if step == steps[-1] or MEASURED in newest[step][2]]


def _replace(session: Session, job_id: str, rows: Sequence[SeriesRow]) -> None:
    """Delete and insert: unlike an upsert, both databases have the same words for it."""
    steps = [step for step, _, _ in rows]
    older = delete(JobMetric).where(JobMetric.job_id == job_id, JobMetric.step.in_(steps))
    session.execute(older, execution_options={"synchronize_session": False})
    session.execute(
        insert(JobMetric),
        [
            {"job_id": job_id, "step": step, "epoch": epoch, "values": dict(values)}
            for step, epoch, values in rows
        ],
    )
