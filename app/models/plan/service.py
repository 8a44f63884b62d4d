"""The rules of plans: which models can be planned, on which pictures, and where the last one is."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.api.faults import field_fault
from app.api.idempotency import Once
from app.audit import Author
from app.database.tables import Dataset, Model, ModelFile
from app.errors import FileNotMadeError, NotFoundError, WrongTaskError
from app.jobs.protocol import add_job
from app.jobs.schemas import JobRead
from app.jobs.service import check_queue_has_room, commit_and_announce
from app.jobs.states import JobKind
from app.models.measured_on import dataset_to_measure
from app.models.plan.schemas import PlanRead, PlanWish
from app.models.schemas import WeightsFormat
from app.models.service import get_model
from app.settings import Settings
from app.task_queue import Bell
from detection.tasks import Task


def queue_plan(
    session: Session,
    settings: Settings,
    bell: Bell,
    model_id: str,
    wish: PlanWish,
    *,
    author: Author,
    once: Once,
) -> JobRead:
    """Queue the measuring of all ways to serve a detector."""
    model = get_model(session, model_id)
    if model.task != Task.DETECT:
        raise WrongTaskError(f"the model {model.id} is a classifier; only detectors are planned")
    if session.get(ModelFile, (model_id, WeightsFormat.ONNX.value)) is None:
        raise FileNotMadeError(
            f"a plan compares backends that read the ONNX file: POST /models/{model_id}/export makes it",
            links={"export": f"/models/{model_id}/export"},
        )
    dataset = _dataset(session, model, wish)
    check_queue_has_room(session, settings)
    job = add_job(
        session,
        JobKind.PLAN,
        name=f"plan for {model.name}"[:200],
        config={"model_id": model_id, **wish.model_dump(mode="json"), "dataset_id": dataset.id},
        dataset_id=dataset.id,
        model_id=model_id,
    )
    return commit_and_announce(session, bell, job, action="model.plan", author=author, once=once)


def get_plan(session: Session, model_id: str) -> PlanRead:
    """Return what the last plan of a model measured."""
    get_model(session, model_id)
    plan = session.scalar(select(Model.plan).where(Model.id == model_id))
    if plan is None:
        raise NotFoundError(f"the model {model_id} was never planned: POST /models/{model_id}/plan does it")
    return PlanRead.model_validate(plan)


def _dataset(session: Session, model: Model, wish: PlanWish) -> Dataset:
    dataset, missing = dataset_to_measure(session, model, wish.dataset_id, wish.split)
    if dataset is None:
        raise field_fault("dataset_id", f"a plan needs real pictures: {missing}")
    return dataset
