"""A model as this machine serves it, for jobs that look at many pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import torch
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Model, ModelFile
from detection.errors import BackendError, UnknownNameError, WeightsError
from detection.images import DecodedImage
from detection.inference.backends import BACKENDS, check_use
from detection.inference.out_of_memory import ALLOCATION_ERRORS, is_out_of_memory
from detection.inference.predictor import DetectOptions, Prediction, Predictor
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
    device: torch.device

    def enter_thread(self) -> None:
        """Have the calling thread compute on the device: which one is current is a matter of each thread."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def detect(self, pictures: Sequence[DecodedImage], options: DetectOptions) -> list[Prediction]:
        """Look at pictures in one batch, or in smaller ones where the memory is not enough for it."""
        try:
            prepared = [self.predictor.prepare(each) for each in pictures]
            return self.predictor.detect(prepared, options)
        except ALLOCATION_ERRORS as error:
            if len(pictures) == 1 or not is_out_of_memory(error):
                raise
        half = len(pictures) // 2
        return self.detect(pictures[:half], options) + self.detect(pictures[half:], options)


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
        device=device,
    )


def _batch_size(pinned: ServingShape | None, wanted: int | None) -> int:
    return pinned.batch_size if pinned is not None else wanted or ACCELERATOR_BATCH


def _choose(model: _Stored, wanted: str | None, device: torch.device) -> Executor:
    for backend, precision in _candidates(model, wanted, on_cpu=device.type == "cpu"):
        if _can_compute(backend, precision, device) and BACKENDS[backend].file.format in model.keys:
            return backend, precision
    raise WeightsError(f"the model has no file that a backend can use on {device}")


def _can_compute(backend: str, precision: Precision, device: torch.device) -> bool:
    try:
        check_use(backend, device, precision)
    except (BackendError, UnknownNameError):
        return False
    return True


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
