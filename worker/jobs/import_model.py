"""Import weights of the original projects: read them without running them, export, check, and publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from app.storage import folder_of
from app.training.pretrained import CLASSES_OF, IMAGENET
from detection.analysis.complexity import count_complexity
from detection.architectures import ARCHITECTURES
from detection.data.coco_classes import COCO_CLASSES
from detection.deploy.package import write_model
from detection.environment import describe_environment
from detection.errors import WeightsError
from detection.input_convention import NAMED_CONVENTIONS, InputConvention
from detection.model_record import ModelRecord
from detection.models.classifier import imagenet_classes
from detection.models.networks import load_served_network
from detection.models.weights import ImportedWeights, read_weights
from detection.tasks import Task
from worker.attempt import Attempt
from worker.jobs.published import NewModel, publish_model

STEPS = 3
"""Read the file, compute and export the network, store the files; nothing tells how long one takes."""


def run(attempt: Attempt) -> None:
    config = attempt.job.config
    _enter(attempt, "reading", 0)
    upload = attempt.storage.local_path(config["upload_key"], attempt.scratch / "upload")
    weights = read_weights(upload)
    for line in weights.report:
        attempt.report.line(line)
    record = model_record(config, weights)
    if config["input_convention"] is None:
        attempt.report.line(
            "no input convention was given: that of the architecture's published weights is assumed. Weights "
            "trained with another find almost nothing; import those with their own `input_convention`"
        )
    elif record.input_convention not in _published_conventions(record.architecture):
        attempt.report.line(
            f"weights of {record.architecture} are not published with this `input_convention`: if these were "
            "not trained with it, they find almost nothing"
        )
    _enter(attempt, "checking", 1)
    network = load_served_network(record.architecture, num_classes=weights.num_classes, state=weights.state)
    folder = attempt.scratch / "model"
    folder.mkdir()
    model = NewModel(
        name=attempt.job.name,
        origin="imported",
        record=record,
        complexity=count_complexity(network, record.input_size_hw),
        metrics=None,
        provenance={
            "file_name": config["file_name"],
            "file_sha256": config["sha256"],
            "folded": weights.folded,
            "report": list(weights.report),
            **_published_classes(record),
            **describe_environment(),
        },
        folder=folder,
        files=write_model(network, record, folder),
    )
    _enter(attempt, "publishing", 2)
    publish_model(attempt, model)
    attempt.storage.delete_all(folder_of(str(config["upload_key"])))


def _enter(attempt: Attempt, stage: str, step: int) -> None:
    attempt.control.pulse()
    attempt.report.stage(stage)
    attempt.report.progress({"step": step, "steps": STEPS, "fraction": step / STEPS})


def model_record(config: Mapping[str, Any], weights: ImportedWeights) -> ModelRecord:
    """Return the record of the model that weights become, with what the user said and what was found.

    Raises:
        WeightsError: the two contradict each other.
    """
    wanted = config["architecture"]
    if wanted not in (None, weights.architecture):
        raise WeightsError(f"the weights are those of a {weights.architecture}, not of a {wanted}")
    architecture = ARCHITECTURES[weights.architecture]
    return architecture.record(
        classes=_classes(config["classes"], weights.num_classes, architecture.task),
        convention=_convention(config["input_convention"]),
    )


def _published_conventions(architecture: str) -> list[InputConvention]:
    """Return those that differ from the architecture's own in the place of a picture only."""
    own = ARCHITECTURES[architecture].convention
    return [
        each
        for each in NAMED_CONVENTIONS.values()
        if replace(each, resize=own.resize, pad_value=own.pad_value) == own
    ]


def _classes(given: list[str] | None, num_classes: int, task: Task) -> tuple[str, ...]:
    """Return the classes' names: those given, or those of the published weights when there are as many."""
    published = COCO_CLASSES if task is Task.DETECT else imagenet_classes()
    if given is None and num_classes == len(published):
        return published
    if given is None:
        raise WeightsError(f"the weights know {num_classes} classes: send their names in order as `classes`")
    if len(given) != num_classes:
        raise WeightsError(f"the weights know {num_classes} classes, but {len(given)} names were sent")
    return tuple(given)


def _published_classes(record: ModelRecord) -> dict[str, str]:
    """Return the note by which `init: "pretrained"` finds a classifier; detectors it knows by classes."""
    is_published = record.task is Task.CLASSIFY and record.classes == imagenet_classes()
    return {CLASSES_OF: IMAGENET} if is_published else {}


def _convention(given: str | Mapping[str, Any] | None) -> InputConvention | None:
    if given is None:
        return None
    if isinstance(given, str):
        return NAMED_CONVENTIONS[given]
    return msgspec.convert(given, InputConvention)
