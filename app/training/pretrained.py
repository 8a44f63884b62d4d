"""What `init: "pretrained"` comes to mean: the newest imported weights of the original project."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Model
from app.errors import NoPretrainedWeightsError
from detection.architectures import Architecture
from detection.data.coco_classes import COCO_CLASSES
from detection.tasks import Task

PRETRAINED = "pretrained"
PUBLISHED_ON = {Task.DETECT: "COCO", Task.CLASSIFY: "ImageNet"}
CLASSES_OF, IMAGENET = "classes_of", "imagenet"
"""Stand in the provenance of an imported classifier of ImageNet's classes, whose list only the worker has."""


def newest_pretrained(session: Session, architecture: Architecture) -> Model:
    """Return the newest import that knows the classes of the published weights.

    Of detectors that have them, one with its own batch norms is taken if there is any.
    """
    imported = session.scalars(
        select(Model)
        .where(Model.architecture == architecture.name, Model.origin == "imported")
        .order_by(Model.id.desc())
    )
    published = [model for model in imported if _knows_published_classes(model)]
    if not published:
        raise NoPretrainedWeightsError(
            f"no {PUBLISHED_ON[architecture.task]} weights of {architecture.name} were imported yet:"
            f" {_how_to_have_them(architecture)}."
            " To start from a model with other classes, give its id as `init`",
            links={"import": "/models/import"},
        )
    return next((model for model in published if not _is_folded(model)), published[0])


def _how_to_have_them(architecture: Architecture) -> str:
    """Say where the published weights are; torchvision knows the addresses of those of classifiers."""
    if architecture.task is Task.DETECT:
        return (
            "send a file of the original project to POST /models/import,"
            f" or run `harrier weights get {architecture.name}`"
        )
    return (
        "send torchvision's file to POST /models/import; its address is what this prints:"
        ' `python -c "import torchvision; print(torchvision.models.get_model_weights('
        f"'{architecture.name}').DEFAULT.url)\"`"
    )


def _knows_published_classes(model: Model) -> bool:
    if model.task == Task.CLASSIFY:
        return model.provenance.get(CLASSES_OF) == IMAGENET
    return tuple(model.classes) == COCO_CLASSES


def _is_folded(model: Model) -> bool:
    return bool(model.provenance.get("folded", False))


def choice_of(start: Model) -> str:
    """Return a line for the job's log about what `pretrained` came to mean."""
    line = (
        f"pretrained: the {PUBLISHED_ON[Task(start.task)]} weights {start.name!r}, model {start.id},"
        f" imported {start.created_at:%Y-%m-%d}"
    )
    if not _is_folded(start):
        return line
    return (
        f"{line}. Their batch norms are folded into the convolutions: they are re-created from the training's"
        " pictures. A file of the original project that still has them is the better start (.pth or .ckpt)"
    )
