"""Backends: what executes a model. A new one is one module here and one name in the import below."""

from detection.inference.backends import eager, onnx_runtime, openvino_runtime, tensorrt
from detection.inference.backends.backend import BACKENDS, Backend, BackendKind, check_use

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendKind",
    "check_use",
    "eager",
    "onnx_runtime",
    "openvino_runtime",
    "tensorrt",
]
