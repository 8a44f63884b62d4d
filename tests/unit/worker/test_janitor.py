"""The janitor: leftovers go, everything that belongs to something stays."""

from __future__ import annotations

import io
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.database.tables import Dataset, IdempotencyKey, Job, Model, Worker, new_id, utc_now
from app.jobs import protocol
from app.jobs.protocol import Claim
from app.jobs.states import JobKind, JobStatus
from app.videos.files import VideoFile, result_key
from worker.context import WorkerContext
from worker.janitor import Janitor

HOUR = 3600.0


@pytest.fixture
def janitor(context: WorkerContext) -> Janitor:
    return Janitor(context)


def file(path: Path, *, old: bool = True) -> Path:
    """Make a file; an old one was last written two hours ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("content")
    if old:
        for each in (path, path.parent):
            os.utime(each, (time.time() - 2 * HOUR,) * 2)
    return path


def old_id() -> str:
    """Return an id as it would have been made two hours ago."""
    milliseconds = int((time.time() - 2 * HOUR) * 1000)
    head = f"{milliseconds:012x}"
    return f"{head[:8]}-{head[8:]}-{new_id()[14:]}"


def test_scratch_of_ended_attempts_goes(janitor: Janitor, context: WorkerContext, claim: Claim) -> None:
    scratch = context.settings.scratch
    running = file(scratch / "jobs" / f"{claim.job_id}-{claim.fence}" / "picture")
    ended = file(scratch / "jobs" / f"{claim.job_id}-{claim.fence - 1}" / "picture")
    fresh = file(scratch / "jobs" / "just-made" / "picture", old=False)
    broken_off = file(scratch / "uploads" / "half")
    coming_in = file(scratch / "uploads" / "now", old=False)
    janitor.remove_scratch()
    assert [path.exists() for path in (running, ended, fresh, broken_off, coming_in)] == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_checkpoints_and_logs_stay_as_long_as_their_job(
    janitor: Janitor, context: WorkerContext, claim: Claim
) -> None:
    settings = context.settings
    mine = file(settings.checkpoints / claim.job_id / "1")
    lost = file(settings.checkpoints / "no-such-job" / "1")
    my_log = file(settings.home_path / "logs" / "jobs" / f"{claim.job_id}.log")
    lost_log = file(settings.home_path / "logs" / "jobs" / "no-such-job.log")
    janitor.remove_files_of_lost_jobs()
    assert [path.exists() for path in (mine, lost, my_log, lost_log)] == [True, False, True, False]
    with context.sessions() as session:
        protocol.succeed(session, claim.job_id, claim.fence, {})
    os.utime(mine.parent, (time.time() - 2 * HOUR,) * 2)
    janitor.remove_files_of_lost_jobs()
    assert not mine.exists(), "nothing goes on from the checkpoints of a job that succeeded"
    assert my_log.exists()


def test_models_without_a_row_go(janitor: Janitor, context: WorkerContext, claim: Claim) -> None:
    published, orphan, fresh = old_id(), old_id(), new_id()
    keys = [f"models/{each}/3/model.onnx" for each in (published, orphan, fresh)]
    for key in keys:
        context.storage.write(key, io.BytesIO(b"graph"))
    with context.sessions() as session:
        session.add(
            Model(
                id=published,
                name="m",
                architecture="yolox-nano",
                classes=[],
                input_size=[64, 64],
                record={},
                parameters=1,
                storage_prefix=f"models/{published}/3",
            )
        )
        session.commit()
        protocol.report(session, claim.job_id, claim.fence, stage="publishing")
    janitor.remove_unpublished_models()
    assert all(context.storage.exists(key) for key in keys), "somebody is publishing just now"
    with context.sessions() as session:
        protocol.report(session, claim.job_id, claim.fence, stage="training")
    janitor.remove_unpublished_models()
    assert [context.storage.exists(key) for key in keys] == [True, False, True]


def test_files_of_datasets_without_a_row_go(janitor: Janitor, context: WorkerContext) -> None:
    known, deleted, fresh = old_id(), old_id(), new_id()
    with context.sessions() as session:
        session.add(Dataset(id=known, name="d", sha256="0" * 64, status="importing"))
        session.commit()
    keys = [f"datasets/{each}/3/images/a.jpg" for each in (known, deleted, fresh)]
    for key in keys:
        context.storage.write(key, io.BytesIO(b"picture"))
    janitor.remove_deleted_datasets()
    assert [context.storage.exists(key) for key in keys] == [True, False, True]


def test_what_others_put_into_the_storage_stays(janitor: Janitor, context: WorkerContext) -> None:
    keys = ["models/lost+found", "models/mine/1/model.onnx", "uploads/from me/archive", "datasets/mine/a.jpg"]
    for key in keys:
        context.storage.write(key, io.BytesIO(b"theirs"))
    janitor.remove_unpublished_models()
    janitor.remove_answered_uploads()
    janitor.remove_deleted_datasets()
    assert all(context.storage.exists(key) for key in keys)


def test_uploads_go_when_their_import_has_ended(janitor: Janitor, context: WorkerContext) -> None:
    waiting, answered = (f"uploads/{old_id()}/archive" for _ in range(2))
    for key in (waiting, answered):
        context.storage.write(key, io.BytesIO(b"zip"))
    with context.sessions() as session:
        protocol.add_job(session, JobKind.DATASET_IMPORT, config={"upload_key": waiting})
        ended = protocol.add_job(session, JobKind.DATASET_IMPORT, config={"upload_key": answered})
        session.commit()
        protocol.request_cancel(session, ended.id)
    janitor.remove_answered_uploads()
    assert (context.storage.exists(waiting), context.storage.exists(answered)) == (True, False)


def test_what_failed_imports_stored_goes_but_their_report_stays(
    janitor: Janitor, context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with context.sessions() as session:
        dataset = Dataset(name="d", sha256="0" * 64, status="rejected")
        session.add(dataset)
        session.flush()
        dataset.storage_prefix = f"datasets/{dataset.id}/5"
        job = protocol.add_job(session, JobKind.DATASET_IMPORT, dataset_id=dataset.id)
        job.fence, job.ended_at = 5, utc_now()
        session.commit()
    keys = [f"datasets/{dataset.id}/{fence}/report.json" for fence in (1, 3, 5)]
    for key in keys:
        context.storage.write(key, io.BytesIO(b"{}"))
    janitor.remove_failed_imports()
    assert [context.storage.exists(key) for key in keys] == [False, False, True]
    looked_at: list[str] = []
    monkeypatch.setattr(context.storage, "folders", lambda prefix: [looked_at.append(prefix) or "5"])
    with context.sessions() as session:
        session.get_one(Job, job.id).ended_at = utc_now() - timedelta(hours=2)
        session.commit()
    for _ in range(3):
        janitor.remove_failed_imports()
    assert looked_at == [f"datasets/{dataset.id}/"], "nothing comes any more once an import has ended"


def test_results_of_videos_stay_with_a_job_that_succeeded_only(
    janitor: Janitor, context: WorkerContext
) -> None:
    def results(job_id: str, fence: int) -> str:
        key = result_key(job_id, fence, VideoFile.DETECTIONS)
        context.storage.write(key, io.BytesIO(b"{}"))
        return key

    def begun(status: JobStatus) -> str:
        with context.sessions() as session:
            job = protocol.add_job(session, JobKind.DETECT_VIDEO)
            session.commit()
            session.execute(update(Job).where(Job.id == job.id).values(status=status, fence=2))
            session.commit()
            return job.id

    succeeded, running = begun(JobStatus.SUCCEEDED), begun(JobStatus.RUNNING)
    kept = {results(succeeded, 2), results(running, 1), results(running, 2), results(new_id(), 1)}
    for job_id, fence in ((succeeded, 1), (begun(JobStatus.CANCELLED), 2), (old_id(), 1)):
        results(job_id, fence)
    results(begun(JobStatus.QUEUED), 2)
    janitor.remove_forsaken_results()
    assert set(context.storage.keys("videos/")) == kept


def test_old_rows_go(janitor: Janitor, context: WorkerContext, claim: Claim) -> None:
    long_ago = utc_now() - timedelta(days=30)
    with context.sessions() as session:
        for made in (long_ago, utc_now()):
            session.add(IdempotencyKey(key=new_id(), fingerprint="0" * 64, created_at=made))
        session.add(Worker(name="gone", queue="cpu", hostname="h", pid=1, seen_at=long_ago))
        session.commit()
    janitor.forget_old_rows()
    with context.sessions() as session:
        assert len(session.scalars(select(IdempotencyKey)).all()) == 1
        assert session.scalars(select(Worker)).all() == []
        assert session.scalars(select(Job)).one().id == claim.job_id
