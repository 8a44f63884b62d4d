"""Serve an exported model with ONNX Runtime: the fast way on a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from detection.inference.backends.backend import BACKENDS, NeededFile, check_size, check_use
from detection.inference.serving import Precision
from detection.model_files import ONNX_FILE
from detection.model_record import ModelRecord


class OnnxRuntimeBackend:
    """One ONNX Runtime session on the CPU."""

    def __init__(self, graph: Path | bytes, *, threads: int | None = None) -> None:
        """Load a graph from a file or from its bytes.

        Args:
            threads: that one picture is computed with; None is one per core.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        # Threads that spin while they wait take the cores from other pictures and from trainings: beside a
        # busy process a picture costs 25 ms of processor time with spinning, 12 ms without, and takes longer.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            graph if isinstance(graph, bytes) else str(graph), options, providers=["CPUExecutionProvider"]
        )

        # Names stand for sizes that are free: that of the batch always, height and width in no graph of ours.
        self._size_hw = tuple(self._session.get_inputs()[0].shape[2:])

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        check_size(self._size_hw, images_BCHW)
        images = np.ascontiguousarray(images_BCHW.numpy())
        return tuple(torch.from_numpy(each) for each in self._session.run(None, {"images": images}))


class OnnxRuntimeKind:
    """Every published model has the graph that it reads."""

    file = NeededFile("onnx", ONNX_FILE)
    package = "onnxruntime"
    side_by_side = True

    def is_available(self) -> bool:
        return True

    def precisions(self, device: torch.device) -> tuple[Precision, ...]:
        return (Precision.FP32,) if device.type == "cpu" else ()

    def load(
        self,
        folder: Path,
        record: ModelRecord,
        *,
        device: torch.device,
        threads: int | None,
        precision: Precision = Precision.FP32,
        cache: Path | None = None,
    ) -> OnnxRuntimeBackend:
        """Load the exported graph of a model's folder; `device` is the CPU."""
        check_use("onnxruntime", device, precision)
        return OnnxRuntimeBackend(folder / ONNX_FILE, threads=threads)


BACKENDS.add("onnxruntime", OnnxRuntimeKind())
