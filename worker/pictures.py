"""A dataset as jobs read it: its record, and its pictures one by one, from wherever the files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Dataset
from app.datasets.contents import IMAGES, DatasetContents
from app.storage import Storage
from detection.data.records import DatasetRecord, ImageRecord
from detection.errors import DatasetFormatError
from worker.attempt import Attempt


@dataclass(frozen=True, slots=True)
class Pictures:
    """Returns the bytes of a picture's file; safe to call from several threads."""

    storage: Storage
    prefix: str
    cache: Path

    def __call__(self, image: ImageRecord) -> bytes:
        return self.storage.local_path(f"{self.prefix}/{IMAGES}/{image.id}", self.cache).read_bytes()


@dataclass(frozen=True, slots=True)
class StoredDataset:
    """A dataset that is ready."""

    record: DatasetRecord
    sha256: str
    """Of the archive that it was imported from."""
    pictures: Pictures


def open_dataset(attempt: Attempt) -> StoredDataset:
    """Return the dataset of the job.

    Raises:
        DatasetFormatError: it is gone, or not ready.
    """

    def find(session: Session) -> Dataset | None:
        query = select(Dataset).where(Dataset.id == attempt.job.dataset_id, Dataset.status == "ready")
        return session.scalars(query).one_or_none()

    dataset = attempt.read(find)
    if dataset is None:
        raise DatasetFormatError(attempt.job.dataset_id or "", "", "the dataset is gone, or not ready")
    prefix = dataset.storage_prefix.rstrip("/")
    pictures = Pictures(attempt.storage, prefix, attempt.scratch / "pictures")
    return StoredDataset(DatasetContents(attempt.storage).manifest(prefix), dataset.sha256, pictures)
