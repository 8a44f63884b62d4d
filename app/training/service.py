"""The rules of a training request: what it may ask for, and what it becomes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from app.api.faults import fault_at, invalid_input
from app.api.idempotency import Once
from app.audit import Author
from app.database.tables import Dataset, Model
from app.datasets.service import ready_dataset
from app.errors import (
    ArchitectureMismatchError,
    EmptySplitError,
    NotFoundError,
)
from app.jobs.protocol import add_job, note_line
from app.jobs.schemas import JobRead
from app.jobs.service import check_queue_has_room, commit_and_announce
from app.jobs.states import JobKind
from app.settings import Settings
from app.task_queue import Bell
from app.training.crops import num_train_crops
from app.training.faults import contradictions
from app.training.pretrained import PRETRAINED, choice_of, newest_pretrained
from app.training.schemas import (
    ArchitectureDetail,
    ArchitectureRead,
    PublishedRead,
    TrainRequest,
)
from app.usage.service import take_room
from detection.architectures import ARCHITECTURES, Architecture
from detection.data.formats.folders import FoldersFormat
from detection.data.records import Split
from detection.errors import UnknownNameError
from detection.families import family_of
from detection.families.classifier import ClassifierConfig
from detection.families.reading import config_schema
from detection.model_record import ModelRecord
from detection.training.config import RANDOM, TrainingConfig
from detection.training.recipes import begin_with, resolve

RECIPE_IMAGES = 1000
"""The size of dataset that `GET /architectures/{name}` shows a recipe for."""


def queue_training(
    session: Session,
    bell: Bell,
    settings: Settings,
    request: TrainRequest,
    *,
    author: Author,
    once: Once,
) -> JobRead:
    """Record the job, its outbox row and the answer together, then ring; a lost ring is left to the sweep."""
    faults = contradictions(request)
    if faults:
        raise invalid_input(faults)
    dataset, _ = ready_dataset(session, request.dataset_id)
    config = request.config()
    config = resolve(config, num_images=_num_train_samples(dataset, config))
    architecture = ARCHITECTURES[config.architecture]
    start = _start(session, config.init, architecture)
    if start is not None:
        config = begin_with(config, msgspec.convert(start.record, ModelRecord).input_convention)
    check_queue_has_room(session, settings)
    take_room(session, settings)
    job = add_job(
        session,
        JobKind.TRAIN,
        name=request.name or f"{architecture.name} on {dataset.name}"[:200],
        config={**asdict(config), "init": start.id if start is not None else RANDOM},
        dataset_id=dataset.id,
        model_id=start.id if start is not None else None,
    )
    if start is not None and config.init == PRETRAINED:
        note_line(session, job.id, choice_of(start))
    return commit_and_announce(session, bell, job, action="job.train", author=author, once=once)


def list_architectures() -> list[ArchitectureRead]:
    return [ArchitectureRead(**_facts(ARCHITECTURES[name])) for name in ARCHITECTURES.names()]


def read_architecture(name: str) -> ArchitectureDetail:
    try:
        architecture = ARCHITECTURES[name]
    except UnknownNameError as error:
        raise NotFoundError(str(error)) from None
    family = family_of(name)
    default = family.config(architecture=name)
    return ArchitectureDetail(
        **_facts(architecture),
        default_config=asdict(default),
        recipe=asdict(resolve(default, num_images=RECIPE_IMAGES)),
        config_schema=config_schema(family),
    )


def _facts(architecture: Architecture) -> dict[str, Any]:
    return {
        "name": architecture.name,
        "task": architecture.task,
        "family": architecture.family,
        "input_size": architecture.input_size,
        "input_multiple": architecture.input_multiple,
        "parameters": architecture.published.parameters,
        "gflops": architecture.published.gflops,
        "published": PublishedRead.model_validate(architecture.published),
        "published_elsewhere": [
            PublishedRead.model_validate(each) for each in architecture.published_elsewhere
        ],
        "weights_licence": architecture.weights_licence,
        "links": {"self": f"/architectures/{architecture.name}"},
    }


def _num_train_samples(dataset: Dataset, config: TrainingConfig) -> int:
    """Return how many pictures, or crops, there are to train on."""
    if isinstance(config, ClassifierConfig):
        return num_train_crops(dataset, config.attribute)
    if dataset.format == FoldersFormat.name:
        raise fault_at(
            "/dataset_id",
            "its pictures lie in a folder per class and have no boxes, so a detector has nothing to find;"
            ' a classifier learns from them: `"task": "classify"`',
        )
    num_images = int(dataset.splits.get(Split.TRAIN, {}).get("images", 0))
    if num_images == 0:
        raise EmptySplitError("the dataset has no pictures to train on")
    return num_images


def _start(session: Session, init: str, architecture: Architecture) -> Model | None:
    """Return the model whose weights the training begins with; None when they are random."""
    if init == RANDOM:
        return None
    model = newest_pretrained(session, architecture) if init == PRETRAINED else session.get(Model, init)
    if model is None:
        raise NotFoundError(f"there is no model {init} to start from")
    _check_related(model, architecture)
    return model


def _check_related(model: Model, architecture: Architecture) -> None:
    """Refuse a start from weights none of which fits: another family has no name and shape in common."""
    known = model.architecture in ARCHITECTURES
    if not known or ARCHITECTURES[model.architecture].family != architecture.family:
        raise ArchitectureMismatchError(
            f"the model {model.id} is a {model.architecture}, none of whose weights fits a"
            f" {architecture.name}; start from a model of its own family"
        )
