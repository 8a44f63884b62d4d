"""The rules of profiles and pruning: what may be asked of which model, and with which dataset."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from app.api.faults import field_fault
from app.api.idempotency import Once
from app.audit import Author
from app.database.tables import Dataset, Model
from app.errors import EmptySplitError, WrongTaskError
from app.jobs.protocol import add_job
from app.jobs.schemas import JobRead
from app.jobs.service import check_queue_has_room, commit_and_announce
from app.jobs.states import JobKind
from app.models.analysis.schemas import ProfileWish, PruneWish
from app.models.measured_on import NO_DATASET, dataset_to_measure, num_images
from app.models.service import get_model
from app.settings import Settings
from app.task_queue import Bell
from app.usage.service import take_room
from detection.architectures import ARCHITECTURES, Architecture
from detection.data.records import Split
from detection.families import family_of
from detection.model_record import ModelRecord
from detection.tasks import Task
from detection.training.recipes import begin_with, resolve


def queue_profile(
    session: Session,
    settings: Settings,
    bell: Bell,
    model_id: str,
    wish: ProfileWish,
    *,
    author: Author,
    once: Once,
) -> JobRead:
    """Queue the profile of a model at an input size that it can take."""
    model = get_model(session, model_id)
    size = _input_size(wish, model, ARCHITECTURES[model.architecture])
    check_queue_has_room(session, settings)
    job = add_job(
        session,
        JobKind.PROFILE,
        name=f"profile of {model.name}"[:200],
        config={"model_id": model_id, **wish.model_dump(mode="json"), "input_size": size},
        model_id=model_id,
    )
    return commit_and_announce(session, bell, job, action="model.profile", author=author, once=once)


def queue_pruning(
    session: Session,
    settings: Settings,
    bell: Bell,
    model_id: str,
    wish: PruneWish,
    *,
    author: Author,
    once: Once,
) -> JobRead:
    """Queue the pruning of a detector, with the dataset that tells what it costs."""
    model = get_model(session, model_id)
    architecture = _detector(model)
    dataset, unmeasured = dataset_to_measure(session, model, wish.dataset_id, wish.split)
    training = _training(model, architecture, dataset, wish) if wish.finetune_epochs else None
    check_queue_has_room(session, settings)
    take_room(session, settings)
    name = wish.name or f"{model.name}, {wish.scope} pruned by {wish.amount:.2g}"[:200]
    wanted = {**wish.model_dump(mode="json"), "name": name, "dataset_id": dataset.id if dataset else None}
    job = add_job(
        session,
        JobKind.PRUNE,
        name=name,
        config={"model_id": model_id, **wanted, "unmeasured": unmeasured, "training": training},
        dataset_id=None if dataset is None else dataset.id,
        model_id=model_id,
    )
    return commit_and_announce(session, bell, job, action="model.prune", author=author, once=once)


def _detector(model: Model) -> Architecture:
    if model.task != Task.DETECT:
        raise WrongTaskError(f"the model {model.id} is a classifier; only detectors are pruned")
    return ARCHITECTURES[model.architecture]


def _input_size(wish: ProfileWish, model: Model, architecture: Architecture) -> list[int]:
    """Return height and width; a network whose levels are joined needs multiples of its coarsest stride."""
    wanted, multiple = wish.input_size or model.input_size, architecture.input_multiple
    size = [wanted, wanted] if isinstance(wanted, int) else list(wanted)
    if any(side % multiple for side in size):
        raise field_fault("input_size", f"{architecture.name} takes multiples of {multiple} only")
    return size


def _training(
    model: Model, architecture: Architecture, dataset: Dataset | None, wish: PruneWish
) -> dict[str, Any]:
    """Return the configuration of the training that follows the pruning: a short run from its weights."""
    if dataset is None:
        raise field_fault("finetune_epochs", f"fine-tuning needs a dataset, but {NO_DATASET}")
    if list(model.classes) != list(dataset.classes):
        raise field_fault("dataset_id", "fine-tuning needs a dataset with the model's classes in their order")
    num_pictures = num_images(dataset, Split.TRAIN)
    if not num_pictures:
        raise EmptySplitError("the dataset has no pictures to train on")
    height, width = model.input_size
    if height != width:
        raise field_fault("finetune_epochs", "a training has a square input, which this model has not")
    record = msgspec.convert(model.record, ModelRecord)
    config = family_of(architecture.name).config(
        architecture=architecture.name, init=model.id, epochs=wish.finetune_epochs, input_size=height
    )
    resolved = resolve(config, num_images=num_pictures)
    return asdict(begin_with(resolved, record.input_convention))
