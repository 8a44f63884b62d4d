"""Profiles and pruning over HTTP."""

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
    NoCommonClassesError,
    NotFoundError,
    OverloadedError,
    QuotaExceededError,
    WrongTaskError,
)
from app.jobs.schemas import JobRead
from app.keys.service import Scope
from app.models.analysis import service
from app.models.analysis.schemas import ProfileWish, PruneWish

router = create_router("models")


@router.post(
    "/models/{model_id}/profile",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=JobRead,
    responses={
        202: {"headers": JOB_LOCATION},
        **answers(NotFoundError, OverloadedError, *CREATING),
    },
)
def profile_model(
    model_id: Id,
    session: SessionDep,
    settings: SettingsDep,
    bell: BellDep,
    author: AuthorDep,
    once: OnceDep,
    response: Response,
    body: Annotated[ProfileWish | None, Body(examples=[example_of(ProfileWish)])] = None,
) -> object:
    """Count and time a model, part by part, as it is before fusing; the job's result is the table."""
    wish = body or ProfileWish()
    once.same_as({"model_id": model_id, **wish.model_dump(mode="json")})
    job = service.queue_profile(session, settings, bell, model_id, wish, author=author, once=once)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.post(
    "/models/{model_id}/prune",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=JobRead,
    responses={
        202: {"headers": JOB_LOCATION},
        **answers(
            NotFoundError,
            WrongTaskError,
            DatasetNotReadyError,
            EmptySplitError,
            NoCommonClassesError,
            OverloadedError,
            QuotaExceededError,
            *CREATING,
        ),
    },
)
def prune_model(
    model_id: Id,
    session: SessionDep,
    settings: SettingsDep,
    bell: BellDep,
    author: AuthorDep,
    once: OnceDep,
    response: Response,
    body: Annotated[PruneWish | None, Body(examples=[example_of(PruneWish)])] = None,
) -> object:
    """Make a new model without the least important weights or channels, and measure what that cost."""
    wish = body or PruneWish()
    once.same_as({"model_id": model_id, **wish.model_dump(mode="json")})
    job = service.queue_pruning(session, settings, bell, model_id, wish, author=author, once=once)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job
