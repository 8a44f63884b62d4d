"""The reference backend: the fused torch module, on any device; on an accelerator by CUDA graphs."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from detection.inference.backends.backend import BACKENDS, NeededFile, check_use
from detection.inference.backends.cuda_graphs import GraphedNetwork, RunNetwork
from detection.inference.backends.torch_thread import thread_of_torch
from detection.inference.serving import Precision
from detection.model_files import WEIGHTS_FILE
from detection.model_record import ModelRecord
from detection.models.layer_constants import work_in_place
from detection.models.network import Network
from detection.models.networks import load_served_network

DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


class EagerBackend:
    """A fused copy of a network in evaluation mode; the network itself stays as it is."""

    def __init__(
        self,
        network: Network,
        device: torch.device,
        *,
        precision: Precision = Precision.FP32,
        threads: int | None = None,
        graphs_for_hw: tuple[int, int] | None = None,
    ) -> None:
        """Copy a network to a device.

        Args:
            precision: of the convolutions; boxes are decoded in float32 all the same.
            threads: that one call computes with on a CPU, one call after the other; None are those that the
                calling thread has.
            graphs_for_hw: height and width, pixels, of the inputs that CUDA graphs are captured for; None
                captures none.
        """
        self._device, self._dtype = device, DTYPES[precision]
        fused = copy.deepcopy(network).eval().requires_grad_(False)
        fused.fuse()
        work_in_place(fused)
        self._network = fused.to(device, self._dtype).to(memory_format=torch.channels_last)
        self._thread = None if threads is None else thread_of_torch(threads)
        self._compute = self._predict if graphs_for_hw is None else self._graphed(graphs_for_hw)

    @property
    def device(self) -> torch.device:
        return self._device

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        if self._thread is None:
            return self._run(images_BCHW)
        return self._thread.submit(self._run, images_BCHW).result()

    @torch.inference_mode()
    def _run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        return self._compute(images_BCHW)

    def _predict(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        images_BCHW = images_BCHW.to(self._device, self._dtype, memory_format=torch.channels_last)
        return tuple(output.float() for output in self._network.predict(images_BCHW))

    @torch.inference_mode()
    def _graphed(self, size_hw: tuple[int, int]) -> RunNetwork:
        example_1CHW = torch.zeros(1, 3, *size_hw, device=self._device, dtype=self._dtype)
        return GraphedNetwork(self._predict, example_1CHW)


class EagerKind:
    """The reference; it runs everywhere and takes images of any size."""

    file = NeededFile("safetensors", WEIGHTS_FILE)
    package = "torch"
    # each loaded model has one thread of its own, in which torch computes with as many as were asked for
    side_by_side = False

    def is_available(self) -> bool:
        return True

    def precisions(self, device: torch.device) -> tuple[Precision, ...]:
        if device.type != "cuda":
            return (Precision.FP32,)
        bf16 = (Precision.BF16,) if torch.cuda.is_bf16_supported(including_emulation=False) else ()
        return Precision.FP32, *bf16, Precision.FP16

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
        """Load the weights of a model's folder; `threads` are of a CPU, an accelerator needs none."""
        check_use("eager", device, precision)
        state = load_file(folder / WEIGHTS_FILE)
        network = load_served_network(record.architecture, num_classes=len(record.classes), state=state)
        if device.type == "cuda":
            return EagerBackend(network, device, precision=precision, graphs_for_hw=record.input_size_hw)
        return EagerBackend(network, device, precision=precision, threads=threads)


BACKENDS.add("eager", EagerKind())
