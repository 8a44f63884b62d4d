"""Serve an exported model with ONNX Runtime: the usual way on a CPU; on accelerators that it is built for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail
from torch import Tensor

from detection.errors import BackendError
from detection.inference.backends.backend import BACKENDS, NeededFile, check_size, check_use
from detection.inference.backends.focus import merge_focus
from detection.inference.serving import Precision
from detection.model_files import ONNX_FILE
from detection.model_record import ModelRecord

CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
Provider = str | tuple[str, Mapping[str, object]]
"""What a session computes with: a name, or a name with options."""


class OnnxRuntimeBackend:
    """One ONNX Runtime session. Images come from the CPU, and outputs go there."""

    def __init__(
        self,
        graph: Path | bytes,
        *,
        threads: int | None = None,
        providers: Sequence[Provider] = (CPU_PROVIDER,),
    ) -> None:
        """Load a graph from a file or from its bytes.

        Args:
            threads: that one picture is computed with, as soon as can be; None is one per core, beside
                others.
            providers: the first that can do a part of the graph does it.

        Raises:
            BackendError: the first of them does not work here, though it is installed.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        # Threads that spin while they wait for each other make a lone picture a third quicker on idle cores,
        # and take the cores from everything else on busy ones. So only those do that were asked for by
        # number, and never beyond the end of a run.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads else "0")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 3
        wanted = provider_name(providers[0])
        try:
            self._session = onnxruntime.InferenceSession(
                graph if isinstance(graph, bytes) else str(graph), options, providers=[*providers]
            )
        except EPFail as error:
            raise BackendError(f"ONNX Runtime cannot use its {wanted} here: {error}") from error
        if wanted not in self._session.get_providers():
            raise BackendError(f"ONNX Runtime cannot use its {wanted} here: a library of it is missing")

        # A provider that fails in a run would be replaced by the CPU for good, without a word to the caller:
        # a model would be served there that was measured and accepted elsewhere.
        self._session.disable_fallback()
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
        if device.type == "cuda":
            return (Precision.FP32,) if CUDA_PROVIDER in onnxruntime.get_available_providers() else ()
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
        """Load the exported graph of a model's folder."""
        check_use("onnxruntime", device, precision)
        providers = [cuda_provider(device)] if device.type == "cuda" else [CPU_PROVIDER]
        return OnnxRuntimeBackend(merge_focus(folder / ONNX_FILE), threads=threads, providers=providers)


BACKENDS.add("onnxruntime", OnnxRuntimeKind())


def cuda_provider(device: torch.device) -> Provider:
    """Return the provider of an accelerator, in full float32."""
    # TF32 has fewer digits than the float32 that a plan and an acceptance take it for.
    return CUDA_PROVIDER, {"device_id": device.index or 0, "use_tf32": 0}


def provider_name(provider: Provider) -> str:
    """Return the name of a provider, with or without options."""
    return provider if isinstance(provider, str) else provider[0]
