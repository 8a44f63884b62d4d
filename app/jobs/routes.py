"""Jobs over HTTP: watch, cancel, finish, resume, delete."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import BackgroundTasks, Header, Query, Response, status
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from sqlalchemy import select

from app.api.conditional import is_unchanged, not_modified
from app.api.dependencies import (
    AuthorDep,
    BellDep,
    Id,
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
from app.api.pagination import Page, newest_first
from app.database.tables import Job
from app.errors import (
    JobActiveError,
    JobEndedError,
    NotFinishableError,
    NotFoundError,
    NotResumableError,
    OverloadedError,
)
from app.jobs import service
from app.jobs.schemas import JobRead, MetricsRead
from app.jobs.series import MOST_POINTS, Series
from app.jobs.states import JobKind, JobStatus
from app.keys.service import Scope
from app.videos.service import remove_results

router = create_router("jobs")

SERIES_EXAMPLE = "step,epoch,ap,loss,lr\r\n26,1,,6.02,0.0016\r\n52,2,0.33,5.11,0.0033\r\n"
LOG_EXAMPLE = "2026-11-20T12:00:04+00:00 epoch 1 of 10 begins\n"
ETAG_HEADER = {"ETag": {"description": "Changes with every visible change.", "schema": {"type": "string"}}}


@router.get(
    "/jobs",
    dependencies=[needs(Scope.READ)],
    response_model=Page[JobRead],
    responses=answers(),
)
def list_jobs(
    session: ReadingDep,
    wanted: PagingDep,
    kind: Annotated[JobKind | None, Query(description="Only jobs of this kind.")] = None,
    job_status: Annotated[
        JobStatus | None, Query(alias="status", description="Only jobs in this state.")
    ] = None,
    model_id: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9-]{1,64}$", description="Only jobs that read this model.")
    ] = None,
) -> object:
    """List jobs, newest first."""
    query = select(Job)
    if kind is not None:
        query = query.where(Job.kind == kind)
    if job_status is not None:
        query = query.where(Job.status == job_status)
    if model_id is not None:
        query = query.where(Job.model_id == model_id)
    rows, cursor = newest_first(session, query, Job.id, wanted)
    return Page[JobRead](items=service.read_jobs(session, rows), next_cursor=cursor)


@router.get(
    "/jobs/{job_id}",
    dependencies=[needs(Scope.READ)],
    response_model=JobRead,
    responses={
        200: {"headers": ETAG_HEADER},
        304: {"description": "Nothing changed since the ETag in If-None-Match."},
        **answers(NotFoundError),
    },
)
def show_job(
    job_id: Id,
    session: ReadingDep,
    response: Response,
    if_none_match: Annotated[str | None, Header(description="An ETag that was seen before.")] = None,
) -> object:
    """Show one job: where it is, what it measured, how it ended."""
    job = service.get_job(session, job_id)
    shown = service.read_job(session, job)
    etag = service.etag_of(job, shown)
    if is_unchanged(etag, if_none_match):
        return not_modified(etag)
    response.headers["ETag"] = etag
    return shown


@router.get(
    "/jobs/{job_id}/metrics",
    dependencies=[needs(Scope.READ)],
    response_model=MetricsRead,
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}, "example": SERIES_EXAMPLE}}},
        **answers(NotFoundError),
    },
)
def show_metrics(
    job_id: Id,
    session: ReadingDep,
    state: StateDep,
    form: Annotated[Literal["json", "csv"], Query(alias="format", description="`json` or `csv`.")] = "json",
    points: Annotated[
        int | None,
        Query(
            ge=2,
            le=MOST_POINTS,
            description="For plots: about so many rows, evenly spread, and all that have an AP.",
        ),
    ] = None,
) -> object:
    """Show the whole series: losses by part, learning rate and AP, one row for every step."""
    service.get_job(session, job_id)
    series = Series(state.reading, job_id, points=points)
    if form == "csv":
        return StreamingResponse(series.as_csv(), media_type="text/csv")
    return StreamingResponse(series.as_json(), media_type="application/json")


@router.get(
    "/jobs/{job_id}/log",
    dependencies=[needs(Scope.READ)],
    response_class=PlainTextResponse,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}, "example": LOG_EXAMPLE}},
            "description": "One line per entry.",
        },
        307: {
            "description": "With `follow`: where the lines come as events.",
            "headers": {"Location": {"description": "The events.", "schema": {"type": "string"}}},
        },
        **answers(NotFoundError),
    },
)
def show_log(
    job_id: Id,
    session: ReadingDep,
    follow: Annotated[
        bool, Query(description="Go on to `/jobs/{job_id}/events`, which says every line as it comes.")
    ] = False,
) -> object:
    """Show the log as text, one line per entry."""
    service.get_job(session, job_id)
    if follow:
        return RedirectResponse(f"/jobs/{job_id}/events")
    return PlainTextResponse("".join(service.log_lines(session, job_id)))


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=JobRead,
    responses=answers(NotFoundError, JobEndedError),
)
def cancel_job(
    job_id: Id, session: SessionDep, storage: StorageDep, author: AuthorDep, after: BackgroundTasks
) -> object:
    """Stop a job. A training keeps its last checkpoint and can be resumed."""
    shown = service.cancel_job(session, job_id, author)
    if upload := service.upload_in_vain(session, job_id):
        after.add_task(storage.delete_all, upload)
    return shown


@router.post(
    "/jobs/{job_id}/finish",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=JobRead,
    responses=answers(NotFoundError, NotFinishableError),
)
def finish_job(job_id: Id, session: SessionDep, author: AuthorDep) -> object:
    """End a running training now and publish its best weights so far."""
    return service.finish_job(session, job_id, author)


@router.post(
    "/jobs/{job_id}/resume",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=JobRead,
    responses=answers(NotFoundError, NotResumableError, OverloadedError),
)
def resume_job(
    job_id: Id, session: SessionDep, bell: BellDep, settings: SettingsDep, author: AuthorDep
) -> object:
    """Go on with a failed or cancelled training, from its last good checkpoint."""
    return service.resume_job(session, bell, settings, job_id, author)


@router.delete(
    "/jobs/{job_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[needs(Scope.TRAIN)],
    responses=answers(NotFoundError, JobActiveError),
)
def delete_job(
    job_id: Id,
    session: SessionDep,
    settings: SettingsDep,
    storage: StorageDep,
    author: AuthorDep,
    after: BackgroundTasks,
) -> None:
    """Forget an ended job with its log, checkpoints and files of a video. The model it made stays."""
    service.delete_job(session, settings, job_id, author)
    after.add_task(remove_results, storage, job_id)
