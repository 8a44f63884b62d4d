"""The reference backend: the fused torch module, on any device."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from detection.inference.backends.backend import BACKENDS
from detection.model_files import WEIGHTS_FILE
from detection.model_record import ModelRecord
from detection.models import load_served_model
from detection.models.detector import Detector
from detection.models.layer_constants import work_in_place


class EagerBackend:
    """A fused copy of a detector in evaluation mode; the detector itself stays as it is."""

    def __init__(self, detector: Detector, device: torch.device) -> None:
        self._device = device
        fused = copy.deepcopy(detector).eval().requires_grad_(False)
        fused.fuse()
        work_in_place(fused)
        self._detector = fused.to(device).to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        return self._device

    @torch.inference_mode()
    def run(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        images_BCHW = images_BCHW.to(self._device, memory_format=torch.channels_last)
        boxes_BP4, scores_BPC = self._detector.predict(images_BCHW)
        return boxes_BP4.float(), scores_BPC.float()


@BACKENDS.register("eager")
def load_eager(
    folder: Path, record: ModelRecord, *, device: torch.device, threads: int | None
) -> EagerBackend:
    """Load the weights of a model's folder. `threads` sets torch's number for the whole process."""
    if threads is not None:
        torch.set_num_threads(threads)
    state = load_file(folder / WEIGHTS_FILE)
    detector = load_served_model(record.architecture, num_classes=len(record.classes), state=state)
    return EagerBackend(detector, device)
