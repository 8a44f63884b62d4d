"""Write a model into a folder: weights, exported graph and record, each proven to be what it should be."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from detection.deploy.export import check_backend, check_onnx, export_onnx
from detection.deploy.openvino_ir import open_openvino, write_openvino
from detection.durable import write_durably
from detection.images import decode_image
from detection.model_files import ONNX_FILE, RECORD_FILE, WEIGHTS_FILE, encode_record
from detection.model_record import ModelRecord
from detection.models.network import Network
from detection.models.widths import ARCHITECTURE
from detection.preprocess import fit_image

CHECKED_PICTURES = 4
OPENVINO_FILE = "model.openvino.zip"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One file of a model, as it was written and read back."""

    name: str
    sha256: str
    size_bytes: int


def write_model(
    network: Network, record: ModelRecord, folder: Path, *, pictures: Sequence[bytes] = ()
) -> tuple[ModelFile, ...]:
    """Write `weights.safetensors`, `model.onnx` and `model.json` into an existing folder.

    The exported graph is compared with the network on some of `pictures` (files as they were uploaded), or
    on a made-up one when there is none. What the network has for training only is not written.

    Raises:
        ExportError: the graph cannot be made or does not compute what the network computes.
        OSError: a file cannot be written.
    """
    graph = export_onnx(network, record)
    check_onnx(graph, network, _prepared(pictures[:CHECKED_PICTURES], record))
    contents = {
        WEIGHTS_FILE: save(_plain_weights(network), metadata={ARCHITECTURE: record.architecture}),
        ONNX_FILE: graph,
        RECORD_FILE: encode_record(record),
    }
    return tuple(
        ModelFile(name=name, sha256=write_durably(folder / name, content), size_bytes=len(content))
        for name, content in contents.items()
    )


def write_openvino_package(
    network: Network, record: ModelRecord, folder: Path, *, pictures: Sequence[bytes] = ()
) -> Path:
    """Write `model.openvino.zip` into an existing folder, compared with the network like `model.onnx`.

    Raises:
        ExportError: the graph cannot be made or does not compute what the network computes.
        MissingPackageError: OpenVINO is not installed here.
        OSError: a file cannot be written.
    """
    path = folder / OPENVINO_FILE
    write_openvino(export_onnx(network, record), record, path)
    check_backend(open_openvino(path), network, _prepared(pictures[:CHECKED_PICTURES], record))
    return path


def _plain_weights(network: Network) -> dict[str, Tensor]:
    served = copy.deepcopy(network).cpu()
    served.drop_training_parts()
    return {name: value.detach().contiguous().clone() for name, value in served.state_dict().items()}


def _prepared(pictures: Sequence[bytes], record: ModelRecord) -> Tensor:
    """Return pictures as the network takes them [B, 3, H, W]."""
    size_hw = record.input_size_hw
    decoded = [decode_image(picture, input_size_hw=size_hw).pixels for picture in pictures]
    if not decoded:
        decoded = [np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)]
    fitted = [fit_image(pixels, size_hw, record.input_convention).tensor for pixels in decoded]
    return torch.from_numpy(np.stack(fitted))
