"""The rules of datasets: what an upload becomes, who may delete one, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.api.idempotency import Once
from app.audit import Author, note_write
from app.database.tables import Dataset, Job, new_id
from app.datasets.schemas import DatasetFailure, DatasetFields, DatasetRead, DatasetStatus
from app.errors import DatasetNotReadyError, HarrierError, InUseError, NotFoundError
from app.jobs.protocol import add_job, note_change
from app.jobs.service import check_queue_has_room
from app.jobs.states import ACTIVE, QUEUE_OF, JobKind
from app.settings import Settings
from app.storage import Storage
from app.task_queue import Bell, announce
from app.usage.service import take_room

if TYPE_CHECKING:
    from app.api.uploads import UploadedForm


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetImport:
    """What the import job is told."""

    dataset_id: str
    upload_key: str
    format: str
    validation_fraction: float
    seed: int
    classes: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {
            "dataset_id": self.dataset_id,
            "upload_key": self.upload_key,
            "format": self.format,
            "validation_fraction": self.validation_fraction,
            "seed": self.seed,
            "classes": self.classes,
        }


def upload_prefix(owner_id: str) -> str:
    """Return where the file that was uploaded for a dataset or a model import lies."""
    return f"uploads/{owner_id}/"


def dataset_prefix(dataset_id: str) -> str:
    return f"datasets/{dataset_id}/"


def add_dataset(
    session: Session,
    storage: Storage,
    settings: Settings,
    bell: Bell,
    form: UploadedForm,
    fields: DatasetFields,
    *,
    author: Author,
    once: Once,
) -> DatasetRead:
    """Take an uploaded archive into the storage, then record dataset, job and answer together, then ring."""
    dataset_id = new_id()
    key = f"{upload_prefix(dataset_id)}archive"
    storage.adopt(key, form.file.path)
    try:
        check_queue_has_room(session, settings)
        take_room(session, settings, form.file.size_bytes)
        rules = fields.classes.model_dump() if fields.classes is not None else {}
        dataset = _add_row(session, dataset_id, form, fields, rules)
        job = add_job(
            session,
            JobKind.DATASET_IMPORT,
            name=dataset.name,
            dataset_id=dataset_id,
            config=DatasetImport(
                dataset_id=dataset_id,
                upload_key=key,
                format=fields.format,
                validation_fraction=fields.validation_fraction,
                seed=fields.seed,
                classes=rules,
            ).as_json(),
        )
        note_change(session, f"datasets/{dataset_id}", {"status": dataset.status})
        note_write(session, author, "dataset.create", f"datasets/{dataset_id}")
        shown = _shown(dataset, job)
        location = {"Location": f"/datasets/{dataset_id}"}
        once.answer(session, status_code=202, headers=location, body=shown)
        session.commit()
    except HarrierError:  # of any other error it is not sure that nothing was committed: the janitor looks
        session.rollback()
        storage.delete_all(upload_prefix(dataset_id))
        raise
    announce(session, bell, job.id, QUEUE_OF[JobKind.DATASET_IMPORT])
    return shown


def get_dataset(session: Session, dataset_id: str) -> Dataset:
    dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        raise NotFoundError(f"there is no dataset {dataset_id}")
    return dataset


def ready_dataset(session: Session, dataset_id: str) -> tuple[Dataset, str]:
    """Return a dataset that can be used, and where its files lie."""
    dataset = get_dataset(session, dataset_id)
    if dataset.status != DatasetStatus.READY or dataset.storage_prefix is None:
        raise DatasetNotReadyError(_why_not_ready(dataset))
    return dataset, dataset.storage_prefix


def _why_not_ready(dataset: Dataset) -> str:
    if dataset.status == DatasetStatus.IMPORTING:
        return "the dataset is still being imported; follow its job"
    return f"the dataset is {dataset.status}; GET /datasets/{dataset.id} says why"


def read_datasets(session: Session, datasets: Sequence[Dataset]) -> list[DatasetRead]:
    """Return datasets as users see them, with one query for the imports of all."""
    imports = session.scalars(
        select(Job)
        .where(Job.dataset_id.in_([dataset.id for dataset in datasets]), Job.kind == JobKind.DATASET_IMPORT)
        .order_by(Job.id)
    )
    import_of = {job.dataset_id: job for job in imports}
    return [_shown(dataset, import_of.get(dataset.id)) for dataset in datasets]


def read_dataset(session: Session, dataset: Dataset) -> DatasetRead:
    return read_datasets(session, [dataset])[0]


def rename_dataset(session: Session, dataset_id: str, name: str, author: Author) -> DatasetRead:
    dataset = get_dataset(session, dataset_id)
    dataset.name = name
    note_change(session, f"datasets/{dataset_id}", {"status": dataset.status, "name": name})
    note_write(session, author, "dataset.rename", f"datasets/{dataset_id}")
    session.commit()
    return read_dataset(session, dataset)


def delete_dataset(session: Session, dataset_id: str, author: Author) -> None:
    """Forget a dataset that no job uses; its files are removed afterwards. Models keep its sha256."""
    dataset = session.scalars(select(Dataset).where(Dataset.id == dataset_id).with_for_update()).one_or_none()
    if dataset is None:
        raise NotFoundError(f"there is no dataset {dataset_id}")
    user = session.scalars(
        select(Job).where(Job.dataset_id == dataset_id, Job.status.in_(ACTIVE)).limit(1)
    ).one_or_none()
    if user is not None:
        raise InUseError(f"the {user.kind} job {user.id} still uses it", links={"job": f"/jobs/{user.id}"})
    session.execute(
        update(Job)
        .where(Job.dataset_id == dataset_id)
        .values(dataset_id=None, version=Job.version + 1, updated_at=Job.updated_at)
    )
    session.delete(dataset)
    note_change(session, f"datasets/{dataset_id}", {"status": "deleted"})
    note_write(session, author, "dataset.delete", f"datasets/{dataset_id}")
    session.commit()


def remove_files(storage: Storage, dataset_id: str) -> None:
    """Remove what a deleted dataset has left; what a crash leaves is found by the janitor."""
    storage.delete_all(dataset_prefix(dataset_id))
    storage.delete_all(upload_prefix(dataset_id))


def _add_row(
    session: Session, dataset_id: str, form: UploadedForm, fields: DatasetFields, rules: dict[str, Any]
) -> Dataset:
    dataset = Dataset(
        id=dataset_id,
        name=fields.name or form.file.shown_name or "dataset",
        status=DatasetStatus.IMPORTING,
        requested_format=fields.format,
        classes=[],
        splits={},
        options={
            "validation_fraction": fields.validation_fraction,
            "seed": fields.seed,
            "classes": rules or None,
        },
        sha256=form.file.sha256,
        size_bytes=form.file.size_bytes,
    )
    session.add(dataset)
    session.flush()
    return dataset


def _shown(dataset: Dataset, job: Job | None) -> DatasetRead:
    return DatasetRead(
        id=dataset.id,
        name=dataset.name,
        status=DatasetStatus(dataset.status),
        requested_format=dataset.requested_format,
        format=dataset.format,
        classes=dataset.classes,
        splits=dataset.splits,
        attributes=dataset.attributes or {},
        options=dataset.options,
        sha256=dataset.sha256,
        size_bytes=dataset.size_bytes,
        job_id=job.id if job is not None else None,
        failure=DatasetFailure.model_validate(dataset.failure) if dataset.failure else None,
        created_at=dataset.created_at,
        updated_at=dataset.updated_at,
        links=_links(dataset, job),
    )


def _links(dataset: Dataset, job: Job | None) -> dict[str, str]:
    here = f"/datasets/{dataset.id}"
    links = {"self": here}
    if job is not None:
        links["job"] = f"/jobs/{job.id}"
    if dataset.status != DatasetStatus.IMPORTING:
        links["report"] = f"{here}/report"
    if dataset.status == DatasetStatus.READY:
        links |= {name: f"{here}/{name}" for name in ("statistics", "images", "export")}
    return links
