"""The files of a model, together in one folder, and its record as JSON. Plain Python."""

from __future__ import annotations

from pathlib import Path

import msgspec

from detection.errors import WeightsError
from detection.model_record import ModelRecord

RECORD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
"""The averaged weights under the architecture's own names, not fused: they can be trained on."""
ONNX_FILE = "model.onnx"
"""The fused network: `images` to `boxes` and `scores`, as `ModelRecord` says."""


def encode_record(record: ModelRecord) -> bytes:
    """Return a record as the content of its file: JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(record)) + b"\n"


def decode_record(content: bytes) -> ModelRecord:
    """Return the record that a file holds.

    Raises:
        WeightsError: it is not the record of a model.
    """
    try:
        return msgspec.json.decode(content, type=ModelRecord)
    except msgspec.MsgspecError as error:
        raise WeightsError(f"{RECORD_FILE} is not the record of a model: {error}") from None


def read_record(folder: Path) -> ModelRecord:
    """Return the record of the model in a folder."""
    return decode_record((folder / RECORD_FILE).read_bytes())
