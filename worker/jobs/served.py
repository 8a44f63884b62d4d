"""A model as this machine serves it, for jobs that look at many pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Model, ModelFile
from detection.errors import WeightsError
from detection.inference.predictor import Predictor
from detection.model_files import ONNX_FILE, RECORD_FILE, WEIGHTS_FILE, encode_record
from detection.model_record import ModelRecord
from worker.attempt import Attempt

ACCELERATOR_BATCH = 16
FILE_OF_BACKEND = {"onnxruntime": ("onnx", ONNX_FILE), "eager": ("safetensors", WEIGHTS_FILE)}
"""The format of a model's file that each backend reads, and the name it must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A loaded model, and the shape of work that fits it."""

    model_id: str
    record: ModelRecord
    predictor: Predictor
    backend: str
    streams: int
    """Batches that run side by side."""
    batch_size: int


def load_served(attempt: Attempt, device: torch.device) -> Served:
    """Load the model that the job reads, for many pictures in a row.

    On a CPU it looks at single pictures on as many streams as this job has cores, on an accelerator at
    batches.

    Raises:
        WeightsError: it is gone, or has no file that can be served here.
    """
    model_id = str(attempt.job.model_id)
    record, keys = _find(attempt, model_id)
    backend = _choose(keys, on_cpu=device.type == "cpu")
    form, name = FILE_OF_BACKEND[backend]
    folder = attempt.scratch / "served"
    folder.mkdir()
    (folder / name).symlink_to(attempt.storage.local_path(keys[form], attempt.scratch / "model"))
    (folder / RECORD_FILE).write_bytes(encode_record(record))
    is_parallel = backend == "onnxruntime"  # torch has one set of threads for the whole process
    return Served(
        model_id=model_id,
        record=record,
        predictor=_load(folder, backend, device, threads=1 if is_parallel else None),
        backend=backend,
        streams=torch.get_num_threads() if is_parallel else 1,
        batch_size=1 if device.type == "cpu" else ACCELERATOR_BATCH,
    )


def _load(folder: Path, backend: str, device: torch.device, *, threads: int | None) -> Predictor:
    return Predictor.from_folder(folder, backend=backend, device=device, threads=threads)


def _choose(keys: dict[str, str], *, on_cpu: bool) -> str:
    wanted = ("onnxruntime", "eager") if on_cpu else ("eager",)
    found = [backend for backend in wanted if FILE_OF_BACKEND[backend][0] in keys]
    if not found:
        raise WeightsError(f"the model has no file for {' or '.join(wanted)}")
    return found[0]


def _find(attempt: Attempt, model_id: str) -> tuple[ModelRecord, dict[str, str]]:
    """Return a model's record, and where its files lie, by format."""

    def find(session: Session) -> tuple[ModelRecord, dict[str, str]]:
        model = session.get(Model, model_id)
        if model is None:
            raise WeightsError(f"the model {model_id} is gone")
        files = session.execute(select(ModelFile.format, ModelFile.key).where(ModelFile.model_id == model_id))
        return msgspec.convert(model.record, ModelRecord), {row.format: row.key for row in files}

    found: tuple[ModelRecord, dict[str, str]] = attempt.read(find)
    return found
