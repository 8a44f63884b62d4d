"""What a job tells: written in batches, complete, and without a hole after a kill."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.database.session import Sessions
from app.database.tables import Job, JobEvent, JobMetric
from app.jobs import protocol
from app.jobs.protocol import Claim, LostLeaseError
from detection.training.reporting import Progress
from tests.services import wait_until
from worker import report as report_module
from worker.callbacks import JOURNAL, TrainingReporter
from worker.control import Control
from worker.journal import Journal
from worker.lease import Lease
from worker.report import JobReport, StageClock


@pytest.fixture
def control() -> Iterator[Control]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        control = Control(theirs)
        control.obey_yourself()
        yield control


@pytest.fixture
def lease(sessions: Sessions, claim: Claim) -> Lease:
    return Lease(sessions, claim.job_id, claim.fence, patience_s=0.5)


@pytest.fixture
def report(lease: Lease, control: Control, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobReport]:
    monkeypatch.setattr(report_module, "WRITE_EVERY_S", 0.05)
    report = JobReport(lease, control, timing={"training_s": 5.0})
    yield report
    report.close()


def job(sessions: Sessions) -> Job:
    with sessions() as session:
        return session.scalars(select(Job)).one()


def series(sessions: Sessions) -> dict[int, object]:
    with sessions() as session:
        rows = session.execute(select(JobMetric.step, JobMetric.values).order_by(JobMetric.step))
        return {row.step: row.values for row in rows}


def test_everything_that_was_said_is_written(report: JobReport, sessions: Sessions) -> None:
    report.stage("training")
    report.progress({"step": 2, "steps": 8}, eta_s=4.0)
    report.row(1, 1, {"loss": 2.0, "ap": 0.5})
    report.row(2, 1, {"loss": 1.0})
    report.config({"batch_size": 4})
    report.device("1")
    report.line("hello")
    report.checkpoint(2)
    report.flush()
    row = job(sessions)
    assert (row.stage, row.progress, row.eta_s) == ("training", {"step": 2, "steps": 8}, 4.0)
    assert row.metrics == {"loss": 1.0, "ap": 0.5}, "the newest of each"
    assert (row.config, row.device) == ({"batch_size": 4}, "1")
    assert row.checkpoint_step == 2
    assert row.timing["training_s"] >= 5.0
    assert series(sessions) == {1: {"loss": 2.0, "ap": 0.5}, 2: {"loss": 1.0}}
    with sessions() as session:
        lines = session.scalars(select(JobEvent.data).where(JobEvent.kind == "log")).all()
    assert lines == [{"line": "hello"}]


def test_the_thread_writes_without_being_asked(report: JobReport, sessions: Sessions) -> None:
    report.row(1, 1, {"loss": 2.0})
    wait_until(lambda: series(sessions), timeout_s=5)


def test_nothing_is_written_when_nothing_was_said(report: JobReport, sessions: Sessions) -> None:
    report.flush()
    before = job(sessions).version
    report.flush()
    assert job(sessions).version == before
    report.flush(time_too=True)
    assert job(sessions).version == before + 1


def test_a_lost_lease_stops_the_job(report: JobReport, sessions: Sessions, control: Control) -> None:
    with sessions() as session:
        row = session.scalars(select(Job)).one()
        row.fence += 1
        session.commit()
    report.line("nobody wants to hear this")
    wait_until(lambda: control._error, timeout_s=5)
    with pytest.raises(LostLeaseError):
        control.request()


def test_a_database_that_stays_away_stops_the_job(
    report: JobReport, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("update", {}, Exception("connection refused"))

    monkeypatch.setattr(protocol, "report", away)
    report.line("for later")
    wait_until(lambda: control._error, timeout_s=10)


def test_a_checkpoint_that_is_noted_late_repeats_no_line(
    report: JobReport, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_checkpoint, faults = protocol.note_checkpoint, [OperationalError("update", {}, Exception("locked"))]

    def locked_once(session: Session, job_id: str, fence: int, step: int) -> None:
        if faults:
            raise faults.pop()
        note_checkpoint(session, job_id, fence, step)

    monkeypatch.setattr(protocol, "note_checkpoint", locked_once)
    with report._writing:  # both in one write
        report.line("once")
        report.checkpoint(3)
    report.flush()
    assert not faults
    assert job(sessions).checkpoint_step == 3
    with sessions() as session:
        lines = session.scalars(select(JobEvent.data).where(JobEvent.kind == "log")).all()
    assert lines == [{"line": "once"}]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_report_that_fails_stops_the_job(
    report: JobReport, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(protocol, "report", broken)
    report.line("lost")
    wait_until(lambda: control._error, timeout_s=5)
    with pytest.raises(RuntimeError, match="before the job"):
        control.request()


def test_time_is_counted_by_stage_over_attempts() -> None:
    clock = StageClock({"training_s": 7.0})
    clock.enter("training")
    clock.enter("publishing")
    spent = clock.seconds()
    assert set(spent) == {"preparing_s", "training_s", "publishing_s"}
    assert spent["training_s"] >= 7.0


class TestTrainingReporter:
    @pytest.fixture
    def reporter(self, report: JobReport, lease: Lease, tmp_path: Path) -> TrainingReporter:
        return TrainingReporter(report, lease, tmp_path)

    def test_a_training_is_followed(
        self, reporter: TrainingReporter, report: JobReport, sessions: Sessions
    ) -> None:
        reporter.on_start(0)
        reporter.on_stage("training")
        reporter.on_metrics(1, 1, {"loss": 3.0})
        reporter.on_progress(
            Progress(epoch=1, epochs=2, step=1, steps=4, fraction=0.25, eta_s=9.0, images_per_s=4.0)
        )
        reporter.on_checkpoint(1)
        reporter.on_log("a line")
        report.flush()
        row = job(sessions)
        assert row.progress == {"epoch": 1, "epochs": 2, "step": 1, "steps": 4, "fraction": 0.25}
        assert (row.eta_s, row.checkpoint_step) == (9.0, 1)

    def test_rows_that_the_database_never_heard_of_come_back(
        self, reporter: TrainingReporter, sessions: Sessions, lease: Lease, tmp_path: Path
    ) -> None:
        """Killed after the checkpoint of step 4, with rows 3 and 4 unwritten and row 2 without its AP."""
        with sessions() as session:
            rows = [(1, 1, {"loss": 1.0}), (2, 1, {"loss": 2.0})]
            protocol.report(session, lease.job_id, lease.fence, series=rows)
        journal = Journal(tmp_path / JOURNAL)
        for step in (1, 2, 3, 4, 5):
            journal.add(step, 1, {"loss": float(step)})
            if step == 2:
                journal.add(2, 1, {"loss": 2.0, "ap": 0.5})
        reporter.on_start(4)
        assert series(sessions) == {
            1: {"loss": 1.0},
            2: {"loss": 2.0, "ap": 0.5},
            3: {"loss": 3.0},
            4: {"loss": 4.0},
        }
        assert job(sessions).checkpoint_step == 4

    def test_a_long_journal_is_compared_in_parts(
        self,
        reporter: TrainingReporter,
        sessions: Sessions,
        lease: Lease,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("worker.callbacks.ROWS_COMPARED_AT_ONCE", 3)
        with sessions() as session:
            rows = [(step, 1, {"loss": float(step)}) for step in range(1, 9) if step != 5]
            protocol.report(session, lease.job_id, lease.fence, series=rows)
        journal = Journal(tmp_path / JOURNAL)
        for step in range(1, 11):
            journal.add(step, 1, {"loss": float(step)})
        reporter.on_start(10)
        assert series(sessions) == {step: {"loss": float(step)} for step in range(1, 11)}

    def test_what_is_not_finite_is_null(
        self, reporter: TrainingReporter, report: JobReport, sessions: Sessions
    ) -> None:
        reporter.on_metrics(1, 1, {"loss": float("nan"), "box": float("inf"), "lr": 0.5})
        report.flush()
        assert series(sessions) == {1: {"loss": None, "box": None, "lr": 0.5}}

    def test_rows_beyond_the_checkpoint_go(
        self, reporter: TrainingReporter, report: JobReport, sessions: Sessions
    ) -> None:
        for step in (1, 2, 3):
            reporter.on_metrics(step, 1, {"loss": float(step)})
        report.flush()
        reporter.on_start(1)
        reporter.on_metrics(2, 1, {"loss": 22.0})
        report.flush()
        assert series(sessions) == {1: {"loss": 1.0}, 2: {"loss": 22.0}}
