"""The rules of a reproduction: which model's training can be started again, and with what exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.api.faults import fault_at
from app.api.idempotency import Once
from app.audit import Author
from app.database.tables import Dataset, Model, ModelFile
from app.errors import NotFoundError, NotReproducibleError
from app.jobs.protocol import add_job
from app.jobs.schemas import JobRead
from app.jobs.service import check_queue_has_room, commit_and_announce
from app.jobs.states import JobKind
from app.settings import Settings
from app.task_queue import Bell
from app.training.schemas import ReproduceWish
from app.usage.service import take_room
from detection.families.reading import read_config
from detection.training.config import RANDOM, TrainingConfig, num_devices
from detection.training.recipes import faults_of

LONGEST_NAME = 200
REPRODUCED = " (reproduced)"
NEEDED = ("config", "step", "dataset_id", "dataset_sha256", "dataset_content_sha256")
"""Entries of a model's provenance without which nothing can be repeated or compared."""


def queue_reproduction(
    session: Session,
    bell: Bell,
    settings: Settings,
    model_id: str,
    wish: ReproduceWish,
    *,
    author: Author,
    once: Once,
) -> JobRead:
    """Queue the training that made a model once more.

    Raises:
        NotFoundError: there is no such model.
        NotReproducibleError: something that its training needs is gone or was never recorded.
        InvalidInputError: its configuration cannot run on the device that is wished for.
    """
    model = session.get(Model, model_id)
    if model is None:
        raise NotFoundError(f"there is no model {model_id}")
    config = _config_of(model)
    _check_dataset(session, model.provenance)
    _check_start(session, model.provenance, config)
    if wish.device is not None:
        config = _on(config, wish.device)
        _check_device(config)
    check_queue_has_room(session, settings)
    take_room(session, settings)
    job = add_job(
        session,
        JobKind.TRAIN,
        name=f"{model.name[: LONGEST_NAME - len(REPRODUCED)]}{REPRODUCED}",
        config=asdict(config),
        dataset_id=model.provenance["dataset_id"],
        model_id=None if config.init == RANDOM else config.init,
        reproduces=model.id,
    )
    return commit_and_announce(session, bell, job, action="model.reproduce", author=author, once=once)


def _on(config: TrainingConfig, device: str) -> TrainingConfig:
    """Return a configuration for another device; one process per device stays one process per device."""
    per_device = config.processes == num_devices(config.device)
    return replace(config, device=device, processes=num_devices(device) if per_device else config.processes)


def _check_device(config: TrainingConfig) -> None:
    """Refuse a device on which the rest of the configuration makes no sense.

    The rest must stay as it was, so it is the device that is wrong, whatever field a check points at.
    """
    if faults := faults_of(config):
        problems = [
            f"`{fault.pointer[1:].replace('/', '.')}` of the first training: {fault.problem}"
            for fault in faults
        ]
        raise fault_at("/device", f"`{config.device}` does not fit its configuration: {'; '.join(problems)}")


def _config_of(model: Model) -> TrainingConfig:
    """Return the configuration that a model was trained with, to the last field."""
    if model.origin != "trained":
        raise NotReproducibleError(
            f"the model {model.id} is {model.origin}: only one that was trained here can be reproduced"
        )
    missing = [name for name in NEEDED if model.provenance.get(name) is None]
    if missing:
        raise NotReproducibleError(
            f"the model {model.id} was trained by an older version, which did not record {', '.join(missing)}"
        )
    try:
        return read_config(model.provenance["config"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the configuration"
        raise NotReproducibleError(
            f"the model {model.id} was trained by another version, whose configuration cannot be read here: "
            f"{place}: {first['msg']}"
        ) from None


def _check_dataset(session: Session, provenance: Mapping[str, Any]) -> None:
    dataset = session.get(Dataset, provenance["dataset_id"])
    if dataset is None or dataset.status != "ready":
        raise NotReproducibleError(f"its dataset {provenance['dataset_id']} was deleted")
    if dataset.sha256 != provenance["dataset_sha256"]:
        raise NotReproducibleError(
            f"the dataset {dataset.id} is not the one it was trained on: that had the sha256 "
            f"{provenance['dataset_sha256']}, this has {dataset.sha256}"
        )


def _check_start(session: Session, provenance: Mapping[str, Any], config: TrainingConfig) -> None:
    """Look for the weights that the training began with; a model's files never change."""
    if config.init == RANDOM:
        return
    file = session.get(ModelFile, (config.init, "safetensors"))
    if file is None:
        raise NotReproducibleError(
            f"the model {config.init}, whose weights its training began with, was deleted"
        )
    began_with = provenance.get("init_sha256")
    if began_with is not None and file.sha256 != began_with:
        raise NotReproducibleError(
            f"the weights of the model {config.init} are not those that its training began with: they had "
            f"the sha256 {began_with}, these have {file.sha256}"
        )
