"""The rules of room: what counts, and what is refused when the quota is reached.

What comes in from outside is refused: uploads that do not fit, and trainings once nothing fits any more. Work
that was accepted is never lost to the quota: it publishes its model and keeps its checkpoints.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from app.database.tables import Dataset, Job, Model, ModelFile
from app.database.turns import Turn, take_turn
from app.datasets.schemas import DatasetStatus
from app.errors import QuotaExceededError
from app.jobs.states import ACTIVE, JobKind, JobStatus
from app.settings import Settings
from app.usage.schemas import RetentionRead, UsageRead, UsedBytes

MOST_LISTED = 1000
TAKES_A_FILE = (JobKind.MODEL_IMPORT, JobKind.DETECT_VIDEO)
HAS_RESULTS = (Job.kind == JobKind.DETECT_VIDEO) & (Job.status == JobStatus.SUCCEEDED)


def read_usage(session: Session, settings: Settings) -> UsageRead:
    """Return what is used, by whom, and what may still be added."""
    checkpoints = _bytes_by_job(settings.checkpoints)
    total = _recorded_bytes(session) + sum(checkpoints.values())
    of_jobs = Counter(checkpoints) + Counter(_bytes_of_videos(session))
    quota = settings.storage_quota_bytes
    return UsageRead(
        total_bytes=total,
        free_bytes=shutil.disk_usage(settings.home_path).free,
        quota_bytes=quota,
        quota_left_bytes=max(quota - total, 0) if quota is not None else None,
        retention=RetentionRead(
            jobs_days=settings.keep_jobs_days,
            rejected_days=settings.keep_rejected_days,
            audit_days=settings.keep_audit_days,
            events_days=settings.keep_events_days,
        ),
        datasets=_datasets(session),
        models=_models(session),
        jobs=_named(session, of_jobs),
    )


def used_bytes(session: Session, settings: Settings) -> int:
    """Return the bytes of all datasets, models, checkpoints and results, and of files that wait for a job."""
    return _recorded_bytes(session) + sum(_bytes_by_job(settings.checkpoints).values())


def room_left(session: Session, settings: Settings) -> int | None:
    """Return how many bytes may still be added, at least 0; None without a quota."""
    if settings.storage_quota_bytes is None:
        return None
    return max(settings.storage_quota_bytes - used_bytes(session, settings), 0)


def take_room(session: Session, settings: Settings, more_bytes: int = 1) -> None:
    """Refuse what does not fit; until the transaction ends nobody else is promised the same room.

    Raises:
        QuotaExceededError: `more_bytes` more would be more than the quota.
    """
    if settings.storage_quota_bytes is not None:
        take_turn(session, Turn.ROOM)
        check_room(session, settings, more_bytes)


def check_room(session: Session, settings: Settings, more_bytes: int = 1) -> None:
    """Refuse what does not fit now.

    Raises:
        QuotaExceededError: `more_bytes` more would be more than the quota.
    """
    room = room_left(session, settings)
    if room is not None and more_bytes > room:
        raise no_room(settings)


def no_room(settings: Settings) -> QuotaExceededError:
    return QuotaExceededError(
        f"datasets, models, checkpoints and results of videos may take {settings.storage_quota_bytes:,} bytes"
        " together; delete what is not needed (GET /usage lists it by size) or raise"
        " HARRIER_STORAGE_QUOTA_BYTES",
        links={"usage": "/usage"},
    )


def _recorded_bytes(session: Session) -> int:
    """Return what the database knows of: all but the checkpoints."""
    datasets = session.scalar(select(func.sum(_size_of_dataset()))) or 0
    models = session.scalar(select(func.sum(ModelFile.size_bytes))) or 0
    videos = session.scalar(select(func.sum(_size_of_results())).where(HAS_RESULTS)) or 0
    return int(datasets) + int(models) + int(videos) + _waiting_files(session)


def _size_of_results() -> ColumnElement[float]:
    """What a job has made of a video; as a float, for PostgreSQL's integers end at 2 GiB."""
    size: ColumnElement[float] = Job.result["stored_bytes"].as_float()
    return size


def _bytes_of_videos(session: Session) -> dict[str, int]:
    """Return what each video's job has stored, of the largest."""
    size = _size_of_results()
    query = select(Job.id, size).where(HAS_RESULTS).order_by(size.desc()).limit(MOST_LISTED)
    return {row[0]: int(row[1]) for row in session.execute(query)}


def _size_of_dataset() -> ColumnElement[int]:
    """What is stored; while it is imported, and where an older version did not count it: the archive."""
    given_up = Dataset.status == DatasetStatus.REJECTED  # its archive is gone
    return case(
        (Dataset.stored_bytes.is_not(None), Dataset.stored_bytes), (given_up, 0), else_=Dataset.size_bytes
    )


def _waiting_files(session: Session) -> int:
    """Return the bytes of weights and videos that were uploaded for jobs which have not ended."""
    configs = session.scalars(select(Job.config).where(Job.kind.in_(TAKES_A_FILE), Job.status.in_(ACTIVE)))
    return sum(int(config.get("size_bytes", 0)) for config in configs)


def _datasets(session: Session) -> list[UsedBytes]:
    size = _size_of_dataset()
    rows = session.execute(select(Dataset.id, Dataset.name, size).order_by(size.desc()).limit(MOST_LISTED))
    return [UsedBytes(id=row[0], name=row[1], bytes=row[2]) for row in rows]


def _models(session: Session) -> list[UsedBytes]:
    total = func.sum(ModelFile.size_bytes)
    rows = session.execute(
        select(Model.id, Model.name, total)
        .join(ModelFile, ModelFile.model_id == Model.id)
        .group_by(Model.id, Model.name)
        .order_by(total.desc())
        .limit(MOST_LISTED)
    )
    return [UsedBytes(id=row[0], name=row[1], bytes=int(row[2])) for row in rows]


def _named(session: Session, checkpoints: Mapping[str, int]) -> list[UsedBytes]:
    largest = sorted(checkpoints.items(), key=lambda used: -used[1])[:MOST_LISTED]
    rows = session.execute(select(Job.id, Job.name).where(Job.id.in_([job_id for job_id, _ in largest])))
    names = {row.id: row.name for row in rows}
    return [UsedBytes(id=job_id, name=names.get(job_id, job_id), bytes=size) for job_id, size in largest]


def _bytes_by_job(checkpoints: Path) -> dict[str, int]:
    """Return what lies below each folder; one that goes away while it is looked at takes no room."""
    found: dict[str, int] = {}
    for folder, _, names in os.walk(checkpoints):  # it passes over what it cannot list
        inside = Path(folder).relative_to(checkpoints).parts
        if inside:
            found[inside[0]] = found.get(inside[0], 0) + sum(_size(Path(folder, name)) for name in names)
    return found


def _size(path: Path) -> int:
    """Return a file's size; one that went away meanwhile takes no room."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
