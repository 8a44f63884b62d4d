"""How much room an import takes: counted to the byte, and refused when the quota leaves less."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from app.database.tables import Dataset, Job, new_id
from app.jobs.states import JobKind, JobStatus
from app.usage.service import used_bytes
from tests.archives import zip_of
from tests.pictures import bmp
from tests.unit.worker.conftest import OpenAttempt
from worker.attempt import Attempt
from worker.context import WorkerContext
from worker.jobs import import_dataset

PICTURE = bmp(np.zeros((64, 64, 3), np.uint8))
ARCHIVE = zip_of(
    {"data.yaml": b"names: [cat]"}
    | {f"images/{n}.bmp": PICTURE[:-1] + bytes([n]) for n in range(4)}
    | {f"images/{n}.txt": b"0 .5 .5 .2 .2" for n in range(4)}
)
"""Pictures that are much larger than the archive they come in."""


def open_import(context: WorkerContext, open_attempt: OpenAttempt, *, quota: int | None = None) -> Attempt:
    dataset_id = new_id()
    key = f"uploads/{dataset_id}/archive"
    context.storage.write(key, io.BytesIO(ARCHIVE))
    with context.sessions() as session:
        session.add(Dataset(id=dataset_id, name="d", sha256="0" * 64, size_bytes=len(ARCHIVE)))
        session.commit()
    config = {"dataset_id": dataset_id, "upload_key": key, "format": "auto", "validation_fraction": 0.25}
    attempt = open_attempt(
        JobKind.DATASET_IMPORT, dataset_id=dataset_id, config={**config, "seed": 0, "classes": None}
    )
    return replace(attempt, settings=context.settings.model_copy(update={"storage_quota_bytes": quota}))


def dataset(context: WorkerContext) -> Dataset:
    with context.sessions() as session:
        return session.query(Dataset).one()


def bytes_in_storage(context: WorkerContext) -> int:
    return sum(context.storage.size(key) for key in context.storage.keys(""))


@pytest.mark.parametrize("quota", [None, 4 * len(PICTURE)])
def test_a_ready_dataset_knows_what_it_takes(
    context: WorkerContext, open_attempt: OpenAttempt, quota: int | None
) -> None:
    import_dataset.run(open_import(context, open_attempt, quota=quota))
    row = dataset(context)
    assert (row.status, row.size_bytes) == ("ready", len(ARCHIVE))
    assert row.stored_bytes == bytes_in_storage(context) > 4 * len(PICTURE)
    with context.sessions() as session:
        assert used_bytes(session, context.settings) == row.stored_bytes


def test_pictures_beyond_the_quota_are_refused_with_a_report(
    context: WorkerContext, open_attempt: OpenAttempt
) -> None:
    assert len(ARCHIVE) < 4 * len(PICTURE) - 1, "the upload itself would fit"
    import_dataset.run(open_import(context, open_attempt, quota=4 * len(PICTURE) - 1))
    with context.sessions() as session:
        job = session.query(Job).one()
    assert job.status == JobStatus.FAILED
    assert job.failure is not None
    assert (job.failure["code"], job.failure["retryable"]) == ("quota_exceeded", False)
    assert "HARRIER_STORAGE_QUOTA_BYTES" in job.failure["message"]
    row = dataset(context)
    assert row.status == "rejected"
    assert row.stored_bytes == bytes_in_storage(context), "only the report is left"
    with context.storage.open(f"{row.storage_prefix}/report.json") as file:
        report = json.load(file)
    assert report["counts"]["quota_exceeded"] == 1
    assert report["findings"][0]["message"] == job.failure["message"]


def test_an_import_that_needs_no_more_than_its_archive_is_never_refused(
    context: WorkerContext, open_attempt: OpenAttempt
) -> None:
    """The archive had its room; others may have filled the rest meanwhile."""
    attempt = open_import(context, open_attempt, quota=1)
    with context.sessions() as session:
        session.query(Dataset).update({"size_bytes": 4 * len(PICTURE)})
        session.commit()
    import_dataset.run(attempt)
    assert dataset(context).status == "ready"
