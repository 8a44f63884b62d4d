"""The worker's ear in a training: what the trainer tells goes into the journal and into the job's report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import JobMetric
from app.jobs import protocol
from detection.training.reporting import Progress
from worker.journal import Journal
from worker.lease import Lease
from worker.report import JobReport

JOURNAL = "series.jsonl"
ROWS_COMPARED_AT_ONCE = 2000


class TrainingReporter:
    """Follows one attempt at a training; it is a `detection.training.reporting.Reporter`."""

    def __init__(self, report: JobReport, lease: Lease, folder: Path) -> None:
        self._report, self._lease = report, lease
        self._journal = Journal(folder / JOURNAL)

    def on_stage(self, stage: str) -> None:
        self._report.stage(stage)

    def on_start(self, step: int) -> None:
        """Make the series end at `step`: rows beyond it go, rows that were never written come."""
        self._report.flush()
        self._journal.cut_after(step)
        self._lease.write(lambda session: self._begin_at(session, step))
        self._tell_what_was_not_written()
        if step:
            self._report.checkpoint(step)
        self._report.flush()

    def on_progress(self, progress: Progress) -> None:
        self._report.progress(progress.as_json(), eta_s=progress.eta_s)

    def on_metrics(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Keep a row; JSON has no word for what is not finite, so that becomes null."""
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._journal.add(step, epoch, row)
        self._report.row(step, epoch, row)

    def on_checkpoint(self, step: int) -> None:
        self._report.checkpoint(step)

    def on_log(self, line: str) -> None:
        self._report.line(line)

    def _begin_at(self, session: Session, step: int) -> None:
        protocol.begin_attempt_at(session, self._lease.job_id, self._lease.fence, step)

    def _tell_what_was_not_written(self) -> None:
        """Compare the journal with the database, some rows at a time, and tell again what is not the same."""
        journal = self._journal.rows()
        while rows := list(islice(journal, ROWS_COMPARED_AT_ONCE)):
            known = self._lease.write(partial(self._known_rows, first=rows[0][0], last=rows[-1][0]))
            for row in rows:
                if known.get(row[0]) != row[2]:
                    self._report.row(*row)
            self._report.flush()

    def _known_rows(self, session: Session, *, first: int, last: int) -> dict[int, dict[str, object]]:
        query = select(JobMetric.step, JobMetric.values).where(
            JobMetric.job_id == self._lease.job_id, JobMetric.step.between(first, last)
        )
        return {row.step: row.values for row in session.execute(query)}
