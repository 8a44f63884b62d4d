"""Datasets over HTTP: upload, look inside, export, rename, delete."""

from __future__ import annotations

from anyio import to_thread
from fastapi import BackgroundTasks, Request, Response, status
from sqlalchemy import select

from app.api.dependencies import (
    CREATING,
    AuthorDep,
    Id,
    OnceDep,
    PagingDep,
    ReadingDep,
    SessionDep,
    StateDep,
    StorageDep,
    answers,
    create_router,
    needs,
)
from app.api.forms import form_body, parse_fields
from app.api.pagination import Page, newest_first
from app.api.uploads import UploadRules, received_form
from app.database.tables import Dataset
from app.datasets import service
from app.datasets.schemas import DatasetFields, DatasetPatch, DatasetRead
from app.errors import InUseError, NoSpaceError, NotFoundError, OverloadedError, UnsupportedMediaError
from app.keys.service import Scope
from detection.data.archive import sniff_archive

router = create_router("datasets")

LOCATION = {"Location": {"description": "Where to look next.", "schema": {"type": "string"}}}


def check_archive_head(head: bytes) -> None:
    if sniff_archive(head) is None:
        raise UnsupportedMediaError("the file is no zip, tar, tar.gz or tar.zst by its first bytes")


@router.post(
    "/datasets",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=DatasetRead,
    responses={202: {"headers": LOCATION}, **answers(NoSpaceError, OverloadedError, *CREATING)},
    openapi_extra=form_body(
        DatasetFields, file="archive", description="zip, tar, tar.gz or tar.zst, told apart by content."
    ),
)
async def upload_dataset(
    request: Request, response: Response, state: StateDep, author: AuthorDep, once: OnceDep
) -> object:
    """Upload a labelled archive. The import is a job: follow `links.job`, then read `links.report`."""
    settings = state.settings
    rules = UploadRules(
        field="archive",
        max_bytes=settings.max_upload_bytes,
        min_free_bytes=settings.min_free_bytes,
        check_head=check_archive_head,
    )
    async with received_form(request, settings.scratch / "uploads", rules) as form:
        fields = parse_fields(DatasetFields, form.fields)
        once.same_as({"archive": form.file.sha256, **fields.model_dump(mode="json")})

        def add() -> DatasetRead:
            with state.sessions() as session:
                return service.add_dataset(
                    session, state.storage, settings, state.bell, form, fields, author=author, once=once
                )

        dataset = await to_thread.run_sync(add)
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


@router.get(
    "/datasets",
    dependencies=[needs(Scope.READ)],
    response_model=Page[DatasetRead],
    responses=answers(),
)
def list_datasets(session: ReadingDep, wanted: PagingDep) -> object:
    """List datasets, newest first."""
    rows, cursor = newest_first(session, select(Dataset), Dataset.id, wanted)
    return Page[DatasetRead](items=service.read_datasets(session, rows), next_cursor=cursor)


@router.get(
    "/datasets/{dataset_id}",
    dependencies=[needs(Scope.READ)],
    response_model=DatasetRead,
    responses=answers(NotFoundError),
)
def show_dataset(dataset_id: Id, session: ReadingDep) -> object:
    """Show one dataset: its state, classes and splits."""
    return service.read_dataset(session, service.get_dataset(session, dataset_id))


@router.patch(
    "/datasets/{dataset_id}",
    dependencies=[needs(Scope.TRAIN)],
    response_model=DatasetRead,
    responses=answers(NotFoundError),
)
def rename_dataset(dataset_id: Id, body: DatasetPatch, session: SessionDep, author: AuthorDep) -> object:
    """Rename a dataset. Nothing else about it can change."""
    return service.rename_dataset(session, dataset_id, body.name, author)


@router.delete(
    "/datasets/{dataset_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[needs(Scope.TRAIN)],
    responses=answers(NotFoundError, InUseError),
)
def delete_dataset(
    dataset_id: Id, session: SessionDep, storage: StorageDep, author: AuthorDep, after: BackgroundTasks
) -> None:
    """Delete a dataset that no job uses. Models trained on it stay and keep its sha256."""
    service.delete_dataset(session, dataset_id, author)
    after.add_task(service.remove_files, storage, dataset_id)
