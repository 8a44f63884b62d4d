"""What a job process makes of everything that a job may raise."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from sqlalchemy import select

from app.database.clock import database_now
from app.database.tables import Job, JobEvent
from app.jobs.protocol import LostLeaseError
from app.jobs.states import JobKind, JobStatus
from detection import errors
from detection.training.state import StopRequest
from tests.unit.worker.conftest import OpenAttempt
from worker import process
from worker.attempt import Attempt
from worker.context import WorkerContext
from worker.control import StoppedError
from worker.jobs import JOBS, load_job

Raising = Callable[[BaseException], Attempt]


@pytest.fixture
def raising(open_attempt: OpenAttempt, monkeypatch: pytest.MonkeyPatch) -> Raising:
    """Return an attempt at a job that raises what it is told."""

    def attempt(error: BaseException) -> Attempt:
        def run(attempt: Attempt) -> None:
            raise error

        monkeypatch.setattr(process, "load_job", lambda kind: run)
        return open_attempt()

    return attempt


def job(context: WorkerContext) -> Job:
    with context.sessions() as session:
        return session.scalars(select(Job)).one()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TrainingDivergedError(7, {"box": float("nan")}), "diverged"),
        (errors.DeviceError("3", "there is no accelerator 3", ["cpu"]), "device_missing"),
        (errors.ArchiveError("archive_bomb", "x.jpg", "expands too far"), "archive_bomb"),
    ],
)
def test_an_error_of_the_library_fails_the_job_with_its_message(
    raising: Raising, context: WorkerContext, error: errors.DetectionError, code: str
) -> None:
    process._run(raising(error))
    row = job(context)
    assert row.status == JobStatus.FAILED
    assert row.failure is not None
    assert (row.failure["code"], row.failure["message"]) == (code, str(error))
    with context.sessions() as session:
        lines = session.scalars(select(JobEvent.data).where(JobEvent.kind == "log")).all()
    assert lines == [{"line": str(error)}]


@pytest.mark.parametrize(
    "error",
    [errors.CheckpointError("all checkpoints are damaged"), errors.DeviceMemoryError(8, 8)],
)
def test_what_may_go_well_the_next_time_is_tried_again(
    raising: Raising, context: WorkerContext, error: errors.DetectionError
) -> None:
    process._run(raising(error))
    assert (job(context).status, job(context).no_progress) == (JobStatus.QUEUED, 1)


@pytest.mark.parametrize("error", [errors.NoSpaceError(200, 100), OSError(errno.ENOSPC, "no space left")])
def test_a_full_disk_makes_the_job_wait(raising: Raising, context: WorkerContext, error: Exception) -> None:
    process._run(raising(error))
    with context.sessions() as session:
        waits = session.scalars(select(Job.not_before - database_now())).one()
    assert job(context).status == JobStatus.QUEUED
    assert 50 < waits <= 60


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "broken"), KeyError("bug"), LostLeaseError("job"), StoppedError(StopRequest.DRAIN)],
    ids=["broken disk", "bug", "lost lease", "stopped"],
)
def test_everything_else_is_for_the_log_and_the_keeper(
    raising: Raising, context: WorkerContext, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        process._run(raising(error))
    assert job(context).status == JobStatus.RUNNING


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken", "/srv/harrier/x.jpg"), KeyError("bug")])
def test_a_crash_leaves_a_line_in_the_jobs_own_log(
    raising: Raising, context: WorkerContext, error: Exception
) -> None:
    with pytest.raises(type(error)):
        process._run(raising(error))
    with context.sessions() as session:
        (line,) = session.scalars(select(JobEvent.data).where(JobEvent.kind == "log"))
    assert line["line"].startswith(f"internal error: {type(error).__name__}: ")
    assert " in run, line " in line["line"]
    assert "srv" not in line["line"]


def test_every_kind_of_job_has_a_module_with_a_function() -> None:
    assert set(JOBS.names()) == set(JobKind)
    assert all(callable(load_job(kind)) for kind in JobKind)
