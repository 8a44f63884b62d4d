"""Datasets over HTTP: upload, look inside, export, rename, delete."""

from __future__ import annotations

from typing import Annotated

import msgspec
from anyio import to_thread
from fastapi import BackgroundTasks, Header, Path, Query, Request, Response, status
from fastapi.responses import StreamingResponse
from sqlalchemy import select

from app.api.conditional import is_unchanged, not_modified
from app.api.dependencies import (
    CREATING,
    AuthorDep,
    ContentsDep,
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
from app.datasets import service, views
from app.datasets.contents import Contents
from app.datasets.schemas import (
    DatasetFields,
    DatasetPatch,
    DatasetRead,
    ExportFormat,
    ImageRead,
    ReportRead,
    StatisticsRead,
)
from app.detect.errors import DamagedPictureError, PictureTooLargeError, UnsupportedPictureError
from app.errors import (
    DatasetNotReadyError,
    EngineUnavailableError,
    InUseError,
    NoSpaceError,
    NotFoundError,
    NotWritableError,
    OverloadedError,
    QuotaExceededError,
    UnsupportedMediaError,
)
from app.keys.service import Scope
from detection.data.archive import sniff_archive
from detection.data.records import ImageRecord, Split
from detection.errors import DatasetFormatError

router = create_router("datasets")

BINARY = {"type": "string", "format": "binary"}
LOCATION = {"Location": {"description": "Where to look next.", "schema": {"type": "string"}}}


def check_archive_head(head: bytes) -> None:
    if sniff_archive(head) is None:
        raise UnsupportedMediaError("the file is no zip, tar, tar.gz or tar.zst by its first bytes")


@router.post(
    "/datasets",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=DatasetRead,
    responses={
        202: {"headers": LOCATION},
        **answers(QuotaExceededError, NoSpaceError, OverloadedError, *CREATING),
    },
    openapi_extra=form_body(
        DatasetFields,
        file="archive",
        description="zip, tar, tar.gz or tar.zst, told apart by content.",
        example={
            "archive": "cells.zip",
            "name": "blood cells",
            "format": "auto",
            "validation_fraction": 0.2,
            "classes": '{"rename": {"rbc": "red cell"}, "drop": ["other"]}',
        },
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
        check_room=state.check_room,
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


@router.get(
    "/datasets/{dataset_id}/report",
    dependencies=[needs(Scope.READ)],
    response_model=ReportRead,
    responses=answers(NotFoundError, DatasetNotReadyError),
)
def show_report(dataset_id: Id, session: ReadingDep, contents: ContentsDep) -> object:
    """Show everything that was noticed in the archive, where, and what was done about it."""
    dataset = service.get_dataset(session, dataset_id)
    failure = service.read_dataset(session, dataset).failure
    report = views.report_of(dataset, failure, contents)
    body = {"status": dataset.status, "counts": report.counts, "findings": report.findings}
    return Response(msgspec.json.encode(body), media_type="application/json")


@router.get(
    "/datasets/{dataset_id}/statistics",
    dependencies=[needs(Scope.READ)],
    response_model=StatisticsRead,
    responses=answers(NotFoundError, DatasetNotReadyError),
)
def show_statistics(dataset_id: Id, session: ReadingDep, contents: ContentsDep) -> object:
    """Show histograms of classes, box sizes, aspects and picture sizes, and where boxes lie."""
    _, prefix = service.ready_dataset(session, dataset_id)
    return contents.statistics(prefix)


@router.get(
    "/datasets/{dataset_id}/images",
    dependencies=[needs(Scope.READ)],
    response_model=Page[ImageRead],
    responses=answers(NotFoundError, DatasetNotReadyError),
)
def list_images(
    dataset_id: Id,
    session: ReadingDep,
    contents: ContentsDep,
    paging: PagingDep,
    split: Annotated[Split | None, Query(description="Only pictures of this split.")] = None,
    class_name: Annotated[
        str | None,
        Query(alias="class", max_length=200, description="Only pictures with a box of this class."),
    ] = None,
    finding: Annotated[
        str | None, Query(pattern=r"^[a-z_]{1,64}$", description="Only pictures with this finding.")
    ] = None,
) -> object:
    """List the pictures with their boxes, in the dataset's own order."""
    _, prefix = service.ready_dataset(session, dataset_id)
    wanted = views.ImageFilter(split=split, class_name=class_name, finding=finding)
    items, cursor = views.page_of_images(contents.of(prefix), dataset_id, wanted, paging)
    return Page[ImageRead](items=items, next_cursor=cursor)


@router.get(
    "/datasets/{dataset_id}/images/{image_id}",
    dependencies=[needs(Scope.READ)],
    response_class=Response,
    responses={
        200: {"description": "The picture, upright.", "content": {"image/jpeg": {"schema": BINARY}}},
        304: {"description": "The client has this picture already."},
        **answers(
            NotFoundError,
            DatasetNotReadyError,
            PictureTooLargeError,
            UnsupportedPictureError,
            DamagedPictureError,
            OverloadedError,
            EngineUnavailableError,
        ),
    },
)
async def show_image(
    dataset_id: Id,
    image_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9]{1,64}$", description="As the list gave it.")],
    state: StateDep,
    boxes: Annotated[bool, Query(description="Draw the labelled boxes.")] = False,
    max_side: Annotated[
        int | None, Query(ge=16, le=4096, description="Shrink so that no side is longer, pixels.")
    ] = None,
    if_none_match: Annotated[str | None, Header(description="An ETag that was seen before.")] = None,
) -> object:
    """Show one picture as JPEG, as a person sees it."""

    def look() -> tuple[Contents, ImageRecord, str]:
        with state.reading() as session:
            _, prefix = service.ready_dataset(session, dataset_id)
        contents = state.contents.of(prefix)
        return contents, views.find_image(contents, image_id), prefix

    contents, image, prefix = await to_thread.run_sync(look)
    etag = f'"{image.sha256[:32]}-{int(boxes)}-{max_side or 0}"'
    if is_unchanged(etag, if_none_match):
        return not_modified(etag)
    content = await to_thread.run_sync(state.contents.image, prefix, image_id)
    drawn = views.boxes_to_draw(contents, image) if boxes else ()
    jpeg = await state.engine.render(content, boxes=drawn, max_side=max_side)
    headers = {"ETag": etag, "Cache-Control": "private, max-age=86400"}
    return Response(jpeg, media_type="image/jpeg", headers=headers)


@router.get(
    "/datasets/{dataset_id}/export",
    dependencies=[needs(Scope.READ)],
    response_class=StreamingResponse,
    responses={
        200: {"description": "A zip.", "content": {"application/zip": {"schema": BINARY}}},
        **answers(NotFoundError, DatasetNotReadyError, NotWritableError),
    },
)
def export_dataset(
    dataset_id: Id,
    session: ReadingDep,
    contents: ContentsDep,
    form: Annotated[ExportFormat, Query(alias="format", description="The layout of the labels.")],
) -> object:
    """Download the dataset as a zip in another layout, written while it is sent."""
    dataset, prefix = service.ready_dataset(session, dataset_id)
    try:
        content = contents.export(prefix, form.value)
    except DatasetFormatError as error:
        raise NotWritableError(str(error)) from None
    return StreamingResponse(
        content,
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{dataset.id}-{form.value}.zip"'},
    )
