"""The reference backend: the fused torch module, on any device."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from detection.inference.backends.backend import BACKENDS, NeededFile, check_use
from detection.inference.serving import Precision
from detection.model_files import WEIGHTS_FILE
from detection.model_record import ModelRecord
from detection.models.layer_constants import work_in_place
from detection.models.network import Network
from detection.models.networks import load_served_network


class EagerBackend:
    """A fused copy of a network in evaluation mode; the network itself stays as it is."""

    def __init__(self, network: Network, device: torch.device) -> None:
        self._device = device
        fused = copy.deepcopy(network).eval().requires_grad_(False)
        fused.fuse()
        work_in_place(fused)
        self._network = fused.to(device).to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        return self._device

    @torch.inference_mode()
    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        images_BCHW = images_BCHW.to(self._device, memory_format=torch.channels_last)
        return tuple(output.float() for output in self._network.predict(images_BCHW))


class EagerKind:
    """The reference; it runs everywhere and takes images of any size."""

    file = NeededFile("safetensors", WEIGHTS_FILE)
    package = "torch"
    # torch computes with one set of threads for the whole process
    side_by_side = False

    def is_available(self) -> bool:
        return True

    def precisions(self, device: torch.device) -> tuple[Precision, ...]:
        return (Precision.FP32,)

    def load(
        self,
        folder: Path,
        record: ModelRecord,
        *,
        device: torch.device,
        threads: int | None,
        precision: Precision = Precision.FP32,
        cache: Path | None = None,
    ) -> EagerBackend:
        """Load the weights of a model's folder. `threads` sets torch's number for the whole process."""
        check_use("eager", device, precision)
        if threads is not None:
            torch.set_num_threads(threads)
        state = load_file(folder / WEIGHTS_FILE)
        network = load_served_network(record.architecture, num_classes=len(record.classes), state=state)
        return EagerBackend(network, device)


BACKENDS.add("eager", EagerKind())
