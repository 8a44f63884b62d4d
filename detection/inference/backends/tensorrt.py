"""Serve an exported model with TensorRT, by way of ONNX Runtime's provider, where that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from detection.inference.backends.backend import BACKENDS, NeededFile, check_use
from detection.inference.backends.onnx_runtime import OnnxRuntimeBackend, Provider, cuda_provider
from detection.inference.serving import Precision
from detection.model_files import ONNX_FILE
from detection.model_record import ModelRecord

PROVIDER = "TensorrtExecutionProvider"
USUAL_BATCH, LARGEST_BATCH = 8, 64
"""An engine is built for batches of 1 up to the largest, and is fastest at the usual one."""


class TensorRtBackend(OnnxRuntimeBackend):
    """An engine; a batch that is larger than what it was built for is computed in parts."""

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        run = super().run
        parts = [run(part) for part in images_BCHW.split(LARGEST_BATCH)]
        return parts[0] if len(parts) == 1 else tuple(torch.cat(each) for each in zip(*parts, strict=True))


class TensorRtKind:
    """It builds an engine for one accelerator, which takes minutes, and keeps it in the cache."""

    file = NeededFile("onnx", ONNX_FILE)
    package = "onnxruntime-gpu"
    side_by_side = False

    def is_available(self) -> bool:
        return PROVIDER in onnxruntime.get_available_providers()

    def precisions(self, device: torch.device) -> tuple[Precision, ...]:
        return (Precision.FP32, Precision.FP16) if device.type == "cuda" and self.is_available() else ()

    def load(
        self,
        folder: Path,
        record: ModelRecord,
        *,
        device: torch.device,
        threads: int | None,
        precision: Precision = Precision.FP32,
        cache: Path | None = None,
    ) -> TensorRtBackend:
        """Build the engine of a model's graph, or take it from the cache."""
        check_use("tensorrt", device, precision)
        providers = tensorrt_providers(record, device, precision, cache)
        return TensorRtBackend(folder / ONNX_FILE, threads=threads, providers=providers)


BACKENDS.add("tensorrt", TensorRtKind())


def tensorrt_providers(
    record: ModelRecord, device: torch.device, precision: Precision, cache: Path | None
) -> Sequence[Provider]:
    """Return TensorRT with its options, and what does the parts of a graph that it cannot do."""
    height, width = record.input_size_hw
    options: dict[str, object] = {
        "device_id": device.index or 0,
        "trt_fp16_enable": precision is Precision.FP16,
        # Without them an engine is built anew whenever a batch has another size, while pictures wait.
        "trt_profile_min_shapes": f"images:1x3x{height}x{width}",
        "trt_profile_opt_shapes": f"images:{USUAL_BATCH}x3x{height}x{width}",
        "trt_profile_max_shapes": f"images:{LARGEST_BATCH}x3x{height}x{width}",
    }
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        options |= {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(cache),
        }
    return [(PROVIDER, options), cuda_provider(device)]
