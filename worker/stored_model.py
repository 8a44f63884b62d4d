"""A model as jobs read it: its row, and its files by format, from wherever they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Model, ModelFile
from detection.errors import WeightsError
from detection.model_files import RECORD_FILE, WEIGHTS_FILE, encode_record
from detection.model_record import ModelRecord
from worker.attempt import Attempt


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A published model."""

    id: str
    record: ModelRecord
    weights: Path
    storage_prefix: str
    provenance: Mapping[str, Any] = field(default_factory=dict)


def find_weights(attempt: Attempt, model_id: str) -> tuple[Model, str] | None:
    """Return a model's row and where its weights are stored; None when it is gone."""

    def find(session: Session) -> tuple[Model, str] | None:
        files = select(Model, ModelFile.key).join(ModelFile, ModelFile.model_id == Model.id)
        row = session.execute(
            files.where(Model.id == model_id, ModelFile.format == "safetensors")
        ).one_or_none()
        return None if row is None else (row.Model, row.key)

    found: tuple[Model, str] | None = attempt.read(find)
    return found


def open_model(attempt: Attempt) -> StoredModel:
    """Return the model that the job reads.

    Raises:
        WeightsError: it is gone.
    """
    model_id = attempt.job.model_id
    found = None if model_id is None else find_weights(attempt, model_id)
    if found is None:
        raise WeightsError(f"the model {model_id} is gone")
    model, key = found
    return StoredModel(
        id=model.id,
        record=msgspec.convert(model.record, ModelRecord),
        weights=attempt.storage.local_path(key, attempt.scratch / "model"),
        storage_prefix=model.storage_prefix.rstrip("/"),
        provenance=model.provenance,
    )


def open_graph(attempt: Attempt, model: StoredModel) -> Path:
    """Return the exported graph of a model.

    Raises:
        WeightsError: it has none.
    """
    query = select(ModelFile.key).where(ModelFile.model_id == model.id, ModelFile.format == "onnx")
    key = attempt.read(lambda session: session.scalars(query).one_or_none())
    if key is None:
        raise WeightsError(f"the model {model.id} has no exported graph; export it as `onnx` first")
    return attempt.storage.local_path(key, attempt.scratch / "graph")


def as_folder(model: StoredModel, folder: Path) -> Path:
    """Lay a model's files out as a predictor loads them."""
    folder.mkdir()
    (folder / WEIGHTS_FILE).symlink_to(model.weights)
    (folder / RECORD_FILE).write_bytes(encode_record(model.record))
    return folder
