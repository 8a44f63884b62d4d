"""Which pictures a model is measured on: those that were named, or those it was trained with."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.database.tables import Dataset, Model
from app.datasets.schemas import DatasetStatus
from app.datasets.service import ready_dataset
from app.errors import EmptySplitError, NoCommonClassesError
from detection.data.records import Split

NO_DATASET = (
    "the model does not say which dataset it was trained on, or that is gone; name one as `dataset_id`"
)


def dataset_to_measure(
    session: Session, model: Model, dataset_id: str | None, split: Split
) -> tuple[Dataset | None, str | None]:
    """Return the dataset to measure a detector on, or why there is none.

    Raises:
        HarrierError: the one that was named cannot be used.
    """
    if dataset_id is not None:
        dataset, _ = ready_dataset(session, dataset_id)
        if not num_images(dataset, split):
            raise EmptySplitError(f"the dataset has no pictures in `{split}`")
        if not set(model.classes) & set(dataset.classes):
            raise NoCommonClassesError("model and dataset have no class of the same name")
        return dataset, None
    known = model.provenance.get("dataset_id")
    own = session.get(Dataset, known) if isinstance(known, str) else None
    if own is None or own.status != DatasetStatus.READY:
        return None, NO_DATASET
    if not num_images(own, split):
        return None, f"the dataset it was trained on has no pictures in `{split}`"
    return own, None


def num_images(dataset: Dataset, split: Split) -> int:
    return int(dataset.splits.get(split, {}).get("images", 0))
