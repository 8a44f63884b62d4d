"""A model as this machine serves it, for jobs that look at many pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from detection.errors import WeightsError
from detection.inference.predictor import Predictor
from detection.model_files import ONNX_FILE
from worker.attempt import Attempt
from worker.stored_model import StoredModel, as_folder, open_graph

ACCELERATOR_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A loaded model, and the shape of work that fits it."""

    predictor: Predictor
    backend: str
    streams: int
    """Batches that run side by side."""
    batch_size: int


def load_served(attempt: Attempt, model: StoredModel, device: torch.device) -> Served:
    """Load a model for many pictures in a row: on a CPU single ones on as many streams as this job has cores,
    on an accelerator batches."""
    folder = as_folder(model, attempt.scratch / "served")
    on_cpu = device.type == "cpu"
    backend = "onnxruntime" if on_cpu and _has_graph(attempt, model) else "eager"
    if backend == "onnxruntime":
        (folder / ONNX_FILE).symlink_to(open_graph(attempt, model))
    streams = torch.get_num_threads() if backend == "onnxruntime" else 1
    predictor = Predictor.from_folder(
        folder, backend=backend, device=device, threads=1 if backend == "onnxruntime" else None
    )
    return Served(
        predictor=predictor, backend=backend, streams=streams, batch_size=1 if on_cpu else ACCELERATOR_BATCH
    )


def _has_graph(attempt: Attempt, model: StoredModel) -> bool:
    try:
        open_graph(attempt, model)
    except WeightsError:
        return False
    return True
