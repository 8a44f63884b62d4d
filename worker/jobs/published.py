"""Make a model visible: first its files are stored, then one transaction adds its rows and ends the job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from app.database.tables import Evaluation, Model, ModelFile, new_id
from app.jobs.protocol import note_change
from detection.analysis.complexity import Complexity
from detection.deploy.package import ModelFile as WrittenFile
from detection.evaluation.metrics import Details
from detection.model_files import ONNX_FILE, WEIGHTS_FILE
from detection.model_record import ModelRecord
from worker.attempt import Attempt
from worker.fault_points import fault_point

FORMAT_OF_FILE = {WEIGHTS_FILE: "safetensors", ONNX_FILE: "onnx"}
"""Files that can be downloaded; the record beside them is in the model's row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModel:
    """A model that is complete in a folder of this attempt."""

    name: str
    origin: str
    """`trained`, `imported` or `pruned`."""
    record: ModelRecord
    complexity: Complexity
    metrics: Mapping[str, Any] | None
    provenance: Mapping[str, Any]
    folder: Path
    files: Sequence[WrittenFile]


def publish_model(
    attempt: Attempt,
    model: NewModel,
    *,
    add_rows: Callable[[Session, str], None] = lambda session, model_id: None,
    result: Mapping[str, Any] | None = None,
    reason: str = "",
) -> None:
    """Store the files, then end the job with the model's rows, and those that `add_rows` adds for its id.

    Args:
        result: what the job's result holds beside `model_id`.
        reason: a word about this end, for the job's transitions.
    """
    model_id, fence = new_id(), attempt.job.fence
    prefix = f"models/{model_id}/{fence}"
    fault_point("publish_begins", fence)
    for file in model.files:
        attempt.storage.adopt(f"{prefix}/{file.name}", model.folder / file.name)
        if attempt.storage.size(f"{prefix}/{file.name}") != file.size_bytes:
            raise OSError(f"{file.name} was not stored as a whole")
        fault_point(f"publish_stored_{file.name}", fence)

    def add_all(session: Session) -> None:
        _add_model(session, attempt, model, model_id, prefix)
        session.flush()
        add_rows(session, model_id)
        fault_point("publish_uncommitted", fence)

    attempt.succeed({"model_id": model_id, **(result or {})}, add_all, reason=reason)
    fault_point("publish_committed", fence)


def _add_model(session: Session, attempt: Attempt, model: NewModel, model_id: str, prefix: str) -> None:
    record = model.record
    session.add(
        Model(
            id=model_id,
            name=model.name,
            job_id=attempt.job.id,
            origin=model.origin,
            task=record.task.value,
            architecture=record.architecture,
            classes=list(record.classes),
            input_size=list(record.input_size_hw),
            record=msgspec.to_builtins(record),
            metrics=None if model.metrics is None else dict(model.metrics),
            parameters=model.complexity.parameters,
            gflops=model.complexity.gflops,
            provenance=dict(model.provenance),
            storage_prefix=prefix,
        )
    )
    session.add_all(
        ModelFile(
            model_id=model_id,
            format=FORMAT_OF_FILE[file.name],
            key=f"{prefix}/{file.name}",
            size_bytes=file.size_bytes,
            sha256=file.sha256,
        )
        for file in model.files
        if file.name in FORMAT_OF_FILE
    )
    note_change(session, f"models/{model_id}", {"status": "created", "name": model.name})


def evaluation_row(
    attempt: Attempt,
    model_id: str,
    *,
    dataset_sha256: str,
    split: str,
    metrics: Mapping[str, Any],
    details: Details | None,
    tta: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Return a new evaluation of a model, on the dataset of the job."""
    return Evaluation(
        id=new_id(),
        model_id=model_id,
        job_id=attempt.job.id,
        dataset_id=attempt.job.dataset_id,
        dataset_sha256=dataset_sha256,
        split=split,
        metrics=dict(metrics),
        tta=None if tta is None else dict(tta),
        **(details.as_json() if details is not None else {}),
    )
