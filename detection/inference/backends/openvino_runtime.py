"""Serve an exported model with OpenVINO on a CPU: exactly, or in half precision where the processor has it.

OpenVINO is an extra, imported when something is asked of it.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detection.errors import MissingPackageError
from detection.inference.backends.backend import BACKENDS, NeededFile, check_size, check_use
from detection.inference.backends.focus import merge_focus
from detection.inference.serving import Precision
from detection.model_files import ONNX_FILE
from detection.model_record import ModelRecord

PACKAGE = "openvino>=2026.4"
HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.FP16: "f16"}
CAPABILITIES = {"BF16": Precision.BF16, "FP16": Precision.FP16}
"""What OpenVINO says of a processor that computes so by itself, and not by way of float32."""


class OpenVinoBackend:
    """A graph that is compiled for one picture at a time, of a fixed size.

    A graph whose batch is free takes an eighth longer, and pictures of a batch gain next to nothing from each
    other on a CPU: those of one batch are computed one after the other.
    """

    def __init__(
        self,
        graph: Path | bytes,
        *,
        threads: int | None = None,
        precision: Precision = Precision.FP32,
    ) -> None:
        """Compile a graph: ONNX, as a file or as its bytes, or OpenVINO's own with its numbers beside it.

        Args:
            threads: that one picture is computed with; None is one per core. As many calls as have cores then
                run side by side.
            precision: what is computed with; outputs are float32 all the same.
        """
        network = _core().read_model(graph if isinstance(graph, bytes) else str(graph))
        _, channels, *size_hw = (_length(each) for each in network.inputs[0].partial_shape)
        network.reshape([1, channels or 3, *(side or -1 for side in size_hw)])
        self._size_hw = size_hw
        self._compiled = _core().compile_model(network, "CPU", _options(threads, precision))
        self._shapes = [tuple(output.shape)[1:] for output in self._compiled.outputs]
        self._idle: list[Any] = []

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        check_size(self._size_hw, images_BCHW)
        images = np.ascontiguousarray(images_BCHW.numpy())
        outputs = [np.empty((len(images), *shape), np.float32) for shape in self._shapes]
        request = self._take_request()
        for index in range(len(images)):
            _compute(request, images, outputs, index)
        self._idle.append(request)
        return tuple(torch.from_numpy(output) for output in outputs)

    def _take_request(self) -> Any:
        """Return a request that no other thread uses; there are as many as calls were ever under way."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._compiled.create_infer_request()


class OpenVinoKind:
    """It reads the graph that every published model has."""

    file = NeededFile("onnx", ONNX_FILE)
    package = "openvino"
    side_by_side = True

    def is_available(self) -> bool:
        try:
            import_openvino()
        except MissingPackageError:
            return False
        return True

    def precisions(self, device: torch.device) -> tuple[Precision, ...]:
        if device.type != "cpu" or not self.is_available():
            return ()
        native = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return Precision.FP32, *(own for name, own in CAPABILITIES.items() if name in native)

    def load(
        self,
        folder: Path,
        record: ModelRecord,
        *,
        device: torch.device,
        threads: int | None,
        precision: Precision = Precision.FP32,
        cache: Path | None = None,
    ) -> OpenVinoBackend:
        """Compile the exported graph of a model's folder; `device` is the CPU."""
        check_use("openvino", device, precision)
        return OpenVinoBackend(merge_focus(folder / ONNX_FILE), threads=threads, precision=precision)


BACKENDS.add("openvino", OpenVinoKind())


def import_openvino() -> ModuleType:
    """Return the package.

    Raises:
        MissingPackageError: it is not installed here.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"OpenVINO is not installed where this ran; `.venv/bin/pip install '{PACKAGE}'` installs it there"
        ) from error
    module: ModuleType = openvino
    return module


@functools.cache
def _core() -> Any:
    return import_openvino().Core()


def _options(threads: int | None, precision: Precision) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    each = min(threads or cores, cores)
    streams = max(cores // each, 1)
    return {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        # Calls beyond the number of streams wait for each other, even from different threads.
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": each * streams,
        # A pinned thread waits for its core while a training computes there, and others are free.
        "ENABLE_CPU_PINNING": False,
    }


def _length(dimension: Any) -> int | None:
    return None if dimension.is_dynamic else dimension.get_length()


def _compute(request: Any, images: np.ndarray, outputs: list[np.ndarray], index: int) -> None:
    """Compute one picture of a batch; it is read and its outputs are written where they lie."""
    tensor = import_openvino().Tensor
    request.set_input_tensor(0, tensor(images[index : index + 1], shared_memory=True))
    for number, output in enumerate(outputs):
        request.set_output_tensor(number, tensor(output[index : index + 1], shared_memory=True))
    request.infer()
