"""A model as this machine serves it, for jobs that look at many pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import torch
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Model, ModelFile
from detection.errors import WeightsError
from detection.inference.backends import BACKENDS, BackendKind
from detection.inference.predictor import Predictor
from detection.inference.serving import Precision, ServingShape, executor_name, read_executor
from detection.model_files import RECORD_FILE, encode_record
from detection.model_record import ModelRecord
from worker.attempt import Attempt

ACCELERATOR_BATCH = 16
CPU_DEFAULT, DEFAULT = "onnxruntime", "eager"

Executor = tuple[str, Precision]
"""A backend, and what it computes with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A loaded model, and the shape of work that fits it."""

    model_id: str
    record: ModelRecord
    predictor: Predictor
    executor: str
    """Backend and precision, as a setting names them."""
    streams: int
    """Batches that run side by side."""
    batch_size: int


@dataclass(frozen=True, slots=True)
class _Stored:
    record: ModelRecord
    shape: ServingShape | None
    """That a plan pinned."""
    keys: Mapping[str, str]
    """Where its files lie, by format."""


def load_served(attempt: Attempt, device: torch.device) -> Served:
    """Load the model that the job reads, for many pictures in a row.

    On a CPU it looks at single pictures on as many streams as this job has cores, on an accelerator at
    batches. The backend is the one that a plan pinned to the model, or that of the settings, or the best of
    this kind of device: the first that can be used here.

    Raises:
        WeightsError: the model is gone, or no backend can use it here.
    """
    model_id = str(attempt.job.model_id)
    model: _Stored = attempt.read(lambda session: _find(session, model_id))
    backend, precision = _choose(model, attempt.settings.backend, device)
    kind, on_cpu = BACKENDS[backend], device.type == "cpu"
    is_parallel = on_cpu and kind.side_by_side
    folder = attempt.scratch / "served"
    folder.mkdir()
    source = attempt.storage.local_path(model.keys[kind.file.format], attempt.scratch / "model")
    (folder / kind.file.name).symlink_to(source)
    (folder / RECORD_FILE).write_bytes(encode_record(model.record))
    loaded = kind.load(
        folder, model.record, device=device, threads=1 if is_parallel else None, precision=precision
    )
    return Served(
        model_id=model_id,
        record=model.record,
        predictor=Predictor(loaded, model.record),
        executor=executor_name(backend, precision),
        streams=torch.get_num_threads() if is_parallel else 1,
        batch_size=1 if on_cpu else _batch_size(model.shape, attempt.settings.engine_batch_size),
    )


def _batch_size(pinned: ServingShape | None, wanted: int | None) -> int:
    return pinned.batch_size if pinned is not None else wanted or ACCELERATOR_BATCH


def _choose(model: _Stored, wanted: str | None, device: torch.device) -> Executor:
    for backend, precision in _candidates(model, wanted, on_cpu=device.type == "cpu"):
        if backend in BACKENDS and _is_usable(BACKENDS[backend], precision, device, model):
            return backend, precision
    raise WeightsError(f"the model has no file that a backend can use on {device}")


def _is_usable(kind: BackendKind, precision: Precision, device: torch.device, model: _Stored) -> bool:
    can_compute = kind.is_available() and precision in kind.precisions(device)
    return can_compute and kind.file.format in model.keys


def _candidates(model: _Stored, wanted: str | None, *, on_cpu: bool) -> Iterator[Executor]:
    if model.shape is not None:
        yield model.shape.backend, model.shape.precision
    if wanted is not None:
        yield read_executor(wanted)
    yield CPU_DEFAULT if on_cpu else DEFAULT, Precision.FP32
    yield DEFAULT, Precision.FP32


def _find(session: Session, model_id: str) -> _Stored:
    model = session.get(Model, model_id)
    if model is None:
        raise WeightsError(f"the model {model_id} is gone")
    files = session.execute(select(ModelFile.format, ModelFile.key).where(ModelFile.model_id == model_id))
    return _Stored(
        record=msgspec.convert(model.record, ModelRecord),
        shape=msgspec.convert(model.serving, ServingShape | None),
        keys={row.format: row.key for row in files},
    )
