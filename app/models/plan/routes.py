"""Plans over HTTP: measure how a model is served best, and look at what was measured."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, Response, status

from app.api.dependencies import (
    CREATING,
    JOB_LOCATION,
    AuthorDep,
    BellDep,
    Id,
    OnceDep,
    ReadingDep,
    SessionDep,
    SettingsDep,
    answers,
    create_router,
    needs,
)
from app.api.shapes import example_of
from app.errors import (
    DatasetNotReadyError,
    EmptySplitError,
    FileNotMadeError,
    NoCommonClassesError,
    NotFoundError,
    OverloadedError,
    WrongTaskError,
)
from app.jobs.schemas import JobRead
from app.keys.service import Scope
from app.models.plan import service
from app.models.plan.schemas import PlanRead, PlanWish

router = create_router("models")


@router.post(
    "/models/{model_id}/plan",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=JobRead,
    responses={
        202: {"headers": JOB_LOCATION},
        **answers(
            NotFoundError,
            WrongTaskError,
            FileNotMadeError,
            DatasetNotReadyError,
            EmptySplitError,
            NoCommonClassesError,
            OverloadedError,
            *CREATING,
        ),
    },
)
def plan_model(
    model_id: Id,
    session: SessionDep,
    settings: SettingsDep,
    bell: BellDep,
    author: AuthorDep,
    once: OnceDep,
    response: Response,
    body: Annotated[PlanWish | None, Body(examples=[example_of(PlanWish)])] = None,
) -> object:
    """Measure every way to serve a detector on this machine, and pin the best.

    A way is a backend, a precision, streams and a batch size. The table is the job's result. One that does
    not find what the reference finds is never pinned; when nothing reaches the wishes, nothing is, and the
    result says what came closest.
    """
    wish = body or PlanWish()
    once.same_as({"model_id": model_id, **wish.model_dump(mode="json")})
    job = service.queue_plan(session, settings, bell, model_id, wish, author=author, once=once)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.get(
    "/models/{model_id}/plan",
    dependencies=[needs(Scope.READ)],
    response_model=PlanRead,
    responses=answers(NotFoundError),
)
def show_plan(model_id: Id, session: ReadingDep) -> object:
    """Show what the last plan of a model measured."""
    return service.get_plan(session, model_id)
