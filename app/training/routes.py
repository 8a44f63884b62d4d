"""Trainings over HTTP: start one, and see what can be trained."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Body, Path, Response, status
from pydantic import PlainValidator

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
    ArchitectureMismatchError,
    DatasetNotReadyError,
    EmptySplitError,
    NoPretrainedWeightsError,
    NotFoundError,
    NotReproducibleError,
    OverloadedError,
    QuotaExceededError,
)
from app.jobs.schemas import JobRead
from app.keys.service import Scope
from app.training import reproducing, service
from app.training.faults import read_request
from app.training.schemas import (
    ONE_OF_THEM,
    TRAIN_EXAMPLES,
    ArchitectureDetail,
    ArchitectureRead,
    ReproduceWish,
    TrainRequest,
)

router = create_router("training")

REFUSALS = (
    NotFoundError,
    DatasetNotReadyError,
    EmptySplitError,
    NoPretrainedWeightsError,
    ArchitectureMismatchError,
    OverloadedError,
    QuotaExceededError,
)


# Named by its members only: FastAPI would describe the type that they have in common as well.
TrainBody = Annotated[
    Any, PlainValidator(read_request, json_schema_input_type=ONE_OF_THEM), Body(examples=TRAIN_EXAMPLES)
]


@router.post(
    "/train",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=JobRead,
    responses={202: {"headers": JOB_LOCATION}, **answers(*REFUSALS, *CREATING)},
)
def start_training(
    body: TrainBody,
    session: SessionDep,
    bell: BellDep,
    settings: SettingsDep,
    author: AuthorDep,
    once: OnceDep,
    response: Response,
) -> object:
    """Queue a training of a detector, or of a classifier (`task: classify`).

    Poll `GET /jobs/{id}` for its progress, or follow `GET /jobs/{id}/events`. A detector is measured by
    COCO's rules (AP), with `evaluation.tta` at the end also with test-time augmentation; a classifier by its
    accuracy on the crops of `val`.
    """
    request: TrainRequest = body
    once.same_as(asdict(request))
    job = service.queue_training(session, bell, settings, request, author=author, once=once)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.post(
    "/models/{model_id}/reproduce",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[needs(Scope.TRAIN)],
    response_model=JobRead,
    responses={
        202: {"headers": JOB_LOCATION},
        **answers(NotFoundError, NotReproducibleError, OverloadedError, QuotaExceededError, *CREATING),
    },
)
def reproduce_model(
    model_id: Id,
    session: SessionDep,
    bell: BellDep,
    settings: SettingsDep,
    author: AuthorDep,
    once: OnceDep,
    response: Response,
    body: Annotated[ReproduceWish | None, Body(examples=[example_of(ReproduceWish)])] = None,
) -> object:
    """Start the training that made a model again: same configuration, pictures and first weights.

    The job goes up to the step whose weights the model has. `result.reproduction` says whether the weights
    are the same to the bit, how far they are apart, and what was not as it was the first time.
    """
    wish = body or ReproduceWish()
    once.same_as({"model_id": model_id, **wish.model_dump(mode="json")})
    job = reproducing.queue_reproduction(session, bell, settings, model_id, wish, author=author, once=once)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.get(
    "/architectures",
    dependencies=[needs(Scope.READ)],
    response_model=list[ArchitectureRead],
    responses=answers(),
)
def list_architectures() -> object:
    """List the networks that can be trained."""
    return service.list_architectures()


@router.get(
    "/architectures/{name}",
    dependencies=[needs(Scope.READ)],
    response_model=ArchitectureDetail,
    responses=answers(NotFoundError),
)
def show_architecture(
    name: Annotated[str, Path(max_length=64, description="As `GET /architectures` names it.")],
) -> object:
    """Show one network with its default configuration, its recipe and the JSON schema of both."""
    return service.read_architecture(name)
