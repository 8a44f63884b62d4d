"""What backends do on accelerators, as far as that can be told without one."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail
from torch import Tensor

from detection.devices import CPU
from detection.errors import BackendError
from detection.inference.backends import BACKENDS, check_use, tensorrt
from detection.inference.backends.eager import EagerBackend
from detection.inference.backends.onnx_runtime import OnnxRuntimeBackend
from detection.inference.backends.tensorrt import PROVIDER, TensorRtBackend, tensorrt_providers
from detection.inference.serving import Precision
from detection.model_record import ModelRecord
from detection.models import create_served_model
from tests.published import tiny_graph

CUDA = torch.device("cuda", 1)
RECORD = ModelRecord(architecture="yolox-nano", classes=("cat",), input_size_hw=(64, 96))


def providers(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*names, "CPUExecutionProvider"])


def test_onnx_runtime_computes_on_an_accelerator_where_it_is_built_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert BACKENDS["onnxruntime"].precisions(CUDA) == ()
    providers(monkeypatch, "CUDAExecutionProvider")
    assert BACKENDS["onnxruntime"].precisions(CUDA) == (Precision.FP32,)


def test_tensorrt_is_there_where_its_provider_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"not installed here; `.venv/bin/pip install onnxruntime-gpu`"):
        check_use("tensorrt", CUDA, Precision.FP16)
    providers(monkeypatch, PROVIDER, "CUDAExecutionProvider")
    assert BACKENDS["tensorrt"].precisions(CUDA) == (Precision.FP32, Precision.FP16)
    with pytest.raises(BackendError, match="tensorrt cannot use cpu"):
        check_use("tensorrt", CPU, Precision.FP32)


def test_an_engine_is_built_once_for_every_batch(tmp_path: Path) -> None:
    (name, options), (fallback, _) = tensorrt_providers(RECORD, CUDA, Precision.FP16, tmp_path / "engines")
    assert (name, fallback) == (PROVIDER, "CUDAExecutionProvider")
    assert isinstance(options, dict)
    assert (options["device_id"], options["trt_fp16_enable"]) == (1, True)
    assert options["trt_profile_min_shapes"] == "images:1x3x64x96"
    assert options["trt_engine_cache_path"] == str(tmp_path / "engines")
    assert (tmp_path / "engines").is_dir()
    (_, exact), _ = tensorrt_providers(RECORD, CUDA, Precision.FP32, None)
    assert isinstance(exact, dict)
    assert not exact["trt_fp16_enable"]
    assert "trt_engine_cache_path" not in exact


@pytest.mark.parametrize(("count", "parts"), [(1, [1]), (2, [2]), (5, [2, 2, 1])])
def test_a_batch_that_an_engine_was_not_built_for_is_computed_in_parts(
    count: int, parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the crops of a second stage, of which a hundred are one batch."""
    images = 255 * torch.rand(count, 3, *RECORD.input_size_hw)
    whole = OnnxRuntimeBackend(tiny_graph()).run(images)
    run, computed = OnnxRuntimeBackend.run, list[int]()

    def counted(backend: OnnxRuntimeBackend, part: Tensor) -> tuple[Tensor, ...]:
        computed.append(len(part))
        return run(backend, part)

    monkeypatch.setattr(tensorrt, "LARGEST_BATCH", 2)
    monkeypatch.setattr(OnnxRuntimeBackend, "run", counted)
    torch.testing.assert_close(TensorRtBackend(tiny_graph()).run(images), whole)
    assert computed == parts


class Without:
    """A session whose first provider could not be loaded."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def test_a_provider_that_does_not_work_is_told_instead_of_the_cpu_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", Without)
    with pytest.raises(BackendError, match="cannot use its CUDAExecutionProvider here"):
        OnnxRuntimeBackend(tiny_graph(), providers=["CUDAExecutionProvider"])


def test_a_provider_that_cannot_make_anything_of_a_graph_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise EPFail("TensorRT EP could not build engine for fused node")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(BackendError, match="its TensorrtExecutionProvider here: TensorRT EP could not"):
        TensorRtBackend(tiny_graph(), providers=[PROVIDER])


class FailsInARun:
    """What computes behind a session, with a provider that fails; all else is as it was."""

    def __init__(self, own: object) -> None:
        self._own = own

    def __getattr__(self, name: str) -> object:
        return getattr(self._own, name)

    def run(self, *_: object) -> list[object]:
        raise EPFail("CUDA failure 719: unspecified launch failure")


def test_a_provider_that_fails_in_a_run_is_told_instead_of_the_cpu_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = OnnxRuntimeBackend(tiny_graph())
    monkeypatch.setattr(backend._session, "_sess", FailsInARun(backend._session._sess))
    with pytest.raises(EPFail):
        backend.run(torch.zeros(1, 3, *RECORD.input_size_hw))


def test_half_precision_is_that_of_the_convolutions_alone() -> None:
    """Boxes of 400 pixels would be off by pixels when they were decoded in numbers of 8 bits."""
    torch.manual_seed(0)
    network = create_served_model("yolox-nano", num_classes=2)
    images = 255 * torch.rand(2, 3, 416, 416)
    boxes, scores = EagerBackend(network, CPU).run(images)
    half_boxes, half_scores = EagerBackend(network, CPU, precision=Precision.BF16).run(images)
    assert half_boxes.dtype is half_scores.dtype is torch.float32
    assert (half_boxes - boxes).abs().median() < 0.5
    torch.testing.assert_close(half_scores, scores, atol=0.02, rtol=0)


def test_an_accelerator_is_asked_for_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = BACKENDS["eager"]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert kind.precisions(CUDA) == (Precision.FP32, Precision.BF16, Precision.FP16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert kind.precisions(CUDA) == (Precision.FP32, Precision.FP16)
    assert kind.precisions(CPU) == (Precision.FP32,)
