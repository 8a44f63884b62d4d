"""Models over HTTP: look, name, download, import, export, evaluate, delete."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import BackgroundTasks, Query, Request, Response, status
from sqlalchemy import select

from app.api.dependencies import (
    CREATING,
    JOB_LOCATION,
    AuthorDep,
    BellDep,
    Id,
    OnceDep,
    PagingDep,
    ReadingDep,
    SessionDep,
    SettingsDep,
    StateDep,
    StorageDep,
    answers,
    create_router,
    needs,
)
from app.api.downloads import Download, send
from app.api.forms import form_body, parse_fields
from app.api.pagination import Page, newest_first
from app.api.uploads import UploadRules, received_form
from app.database.tables import Evaluation, Model
from app.errors import (
    DatasetNotReadyError,
    EmptySplitError,
    FileNotMadeError,
    InUseError,
    NoCommonClassesError,
    NoSpaceError,
    NotFoundError,
    OverloadedError,
    QuotaExceededError,
    RangeNotSatisfiableError,
    UnsupportedMediaError,
)
from app.jobs.schemas import JobRead
from app.keys.service import Scope
from app.models import service
from app.models.schemas import (
    EvaluateWish,
    EvaluationDetail,
    EvaluationRead,
    ExportWish,
    ImportFields,
    ModelPatch,
    ModelRead,
    WeightsFormat,
)

router = create_router("models")

SUFFIX = {
    WeightsFormat.SAFETENSORS: "safetensors",
    WeightsFormat.ONNX: "onnx",
    WeightsFormat.OPENVINO: "openvino.zip",
    WeightsFormat.TORCH: "pt",
}


@router.get("/models", dependencies=[needs(Scope.READ)], response_model=Page[ModelRead], responses=answers())
def list_models(session: ReadingDep, wanted: PagingDep) -> object:
    """List models, newest first."""
    rows, cursor = newest_first(session, select(Model), Model.id, wanted)
    return Page[ModelRead](items=service.read_models(session, rows), next_cursor=cursor)


@router.get(
    "/models/{model_id}",
    dependencies=[needs(Scope.READ)],
    response_model=ModelRead,
    responses=answers(NotFoundError),
)
def show_model(model_id: Id, session: ReadingDep) -> object:
    """Show one model: classes, metrics, provenance and files."""
    return service.read_model(session, service.get_model(session, model_id))


@router.patch(
    "/models/{model_id}",
    dependencies=[needs(Scope.TRAIN)],
    response_model=ModelRead,
    responses=answers(NotFoundError),
)
async def change_model(model_id: Id, body: ModelPatch, state: StateDep, author: AuthorDep) -> object:
    """Rename a model or move an alias to it. `/detect` takes the alias `production` by default.

    An alias moves when its model is in memory, so that the next request is as quick as the last.
    """
    if body.alias is not None:
        await state.detection.prepare(model_id)

    def change() -> object:
        with state.sessions() as session:
            return service.change_model(session, model_id, body, author)

    return await to_thread.run_sync(change)


@router.delete(
    "/models/{model_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[needs(Scope.TRAIN)],
    responses=answers(NotFoundError, InUseError),
)
def delete_model(
    model_id: Id, session: SessionDep, storage: StorageDep, author: AuthorDep, after: BackgroundTasks
) -> None:
    """Delete a model that no job uses, with its files and evaluations."""
    service.delete_model(session, model_id, author)
    after.add_task(service.remove_files, storage, model_id)


@router.get(
    "/models/{model_id}/weights",
    dependencies=[needs(Scope.READ)],
    response_class=Response,
    responses={
        200: {
            "description": "The file.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        206: {
            "description": "The range that was asked for.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        304: {"description": "The client has this file already."},
        **answers(NotFoundError, FileNotMadeError, RangeNotSatisfiableError),
    },
)
def download_weights(
    model_id: Id,
    request: Request,
    session: ReadingDep,
    storage: StorageDep,
    wanted: Annotated[
        WeightsFormat,
        Query(alias="format", description="Which file; `openvino` is a zip of graph and weights."),
    ] = WeightsFormat.SAFETENSORS,
) -> object:
    """Download the weights. `ETag` and one `Range` are honoured, so that a broken download can go on."""
    model, file = service.find_file(session, model_id, wanted)
    name = f"{model.architecture}-{model.id}.{SUFFIX[wanted]}"
    return send(storage, Download(file.key, file.size_bytes, file.sha256, name), request.headers)


def check_weights_head(head: bytes) -> None:
    if not head:
        raise UnsupportedMediaError("the file is empty")


@router.post(
    "/models/import",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=JobRead,
    responses={
        202: {"headers": JOB_LOCATION},
        **answers(QuotaExceededError, NoSpaceError, OverloadedError, *CREATING),
    },
    openapi_extra=form_body(
        ImportFields,
        file="weights",
        description="`.pth`, `.ckpt`, `.safetensors` or `.onnx` of one of the architectures.",
        example={"weights": "yolox_nano.pth", "name": "YOLOX-nano on COCO", "architecture": "yolox-nano"},
    ),
)
async def import_model(
    request: Request, response: Response, state: StateDep, author: AuthorDep, once: OnceDep
) -> object:
    """Import weights of the original projects or of torchvision.

    Nothing in the file is run; reading it is a job.
    """
    settings = state.settings
    rules = UploadRules(
        field="weights",
        max_bytes=settings.max_weights_bytes,
        min_free_bytes=settings.min_free_bytes,
        check_room=state.check_room,
        check_head=check_weights_head,
    )
    async with received_form(request, settings.scratch / "uploads", rules) as form:
        fields = parse_fields(ImportFields, form.fields)
        once.same_as({"weights": form.file.sha256, **fields.model_dump(mode="json")})

        def add() -> JobRead:
            with state.sessions() as session:
                return service.queue_import(
                    session, state.storage, settings, state.bell, form, fields, author=author, once=once
                )

        job = await to_thread.run_sync(add)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.post(
    "/models/{model_id}/export",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=JobRead,
    responses={202: {"headers": JOB_LOCATION}, **answers(NotFoundError, OverloadedError, *CREATING)},
)
def export_model(
    model_id: Id,
    body: ExportWish,
    session: SessionDep,
    settings: SettingsDep,
    bell: BellDep,
    author: AuthorDep,
    once: OnceDep,
    response: Response,
) -> object:
    """Make the weights in another format. One that is there already gives a job that has succeeded."""
    once.same_as({"model_id": model_id, **body.model_dump(mode="json")})
    job = service.queue_export(session, settings, bell, model_id, body.format, author=author, once=once)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.post(
    "/models/{model_id}/evaluate",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=JobRead,
    responses={
        202: {"headers": JOB_LOCATION},
        **answers(
            NotFoundError,
            DatasetNotReadyError,
            EmptySplitError,
            NoCommonClassesError,
            OverloadedError,
            *CREATING,
        ),
    },
)
def evaluate_model(
    model_id: Id,
    body: EvaluateWish,
    session: SessionDep,
    settings: SettingsDep,
    bell: BellDep,
    author: AuthorDep,
    once: OnceDep,
    response: Response,
) -> object:
    """Measure a model on a split of a dataset. Classes are matched by name.

    A detector is measured by COCO's rules (AP); with `tta` plainly and with test-time augmentation, and the
    difference is reported. A classifier is measured by accuracy, recall and precision, on crops of the boxes.
    """
    once.same_as({"model_id": model_id, **body.model_dump(mode="json")})
    job = service.queue_evaluation(session, settings, bell, model_id, body, author=author, once=once)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.get(
    "/models/{model_id}/evaluations",
    dependencies=[needs(Scope.READ)],
    response_model=Page[EvaluationRead],
    responses=answers(NotFoundError),
)
def list_evaluations(model_id: Id, session: ReadingDep, wanted: PagingDep) -> object:
    """List the evaluations of a model, newest first."""
    service.get_model(session, model_id)
    query = select(Evaluation).where(Evaluation.model_id == model_id)
    rows, cursor = newest_first(session, query, Evaluation.id, wanted)
    items = [service.read_evaluation(row) for row in rows]
    return Page[EvaluationRead](items=items, next_cursor=cursor)


@router.get(
    "/evaluations/{evaluation_id}",
    dependencies=[needs(Scope.READ)],
    response_model=EvaluationDetail,
    responses=answers(NotFoundError),
)
def show_evaluation(evaluation_id: Id, session: ReadingDep) -> object:
    """Show one evaluation: AP or accuracy, also by class, curves and confusion matrix as numbers."""
    return service.get_evaluation(session, evaluation_id)
