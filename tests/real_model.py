"""A model of a real architecture in a home, written as a finished training would write it."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec
import torch

from app.database.tables import Model, ModelFile, new_id
from detection.deploy.package import write_model
from detection.model_files import ONNX_FILE, WEIGHTS_FILE
from detection.model_record import ModelRecord
from detection.models import create_served_model
from tests.tiny_dataset import Place

FORMATS = {"safetensors": WEIGHTS_FILE, "onnx": ONNX_FILE}


@cache
def _written(record: ModelRecord) -> tuple[int, Mapping[str, bytes]]:
    """Return the number of parameters and the files; to export a network takes seconds."""
    torch.manual_seed(0)
    detector = create_served_model(record.architecture, num_classes=len(record.classes))
    with torch.no_grad():
        for entry, weight in detector.named_parameters():
            if "_preds." in entry and entry.endswith("weight"):
                weight.mul_(0.01)
    with tempfile.TemporaryDirectory() as folder:
        write_model(detector, record, Path(folder))
        files = {file: (Path(folder) / file).read_bytes() for file in FORMATS.values()}
    return sum(each.numel() for each in detector.parameters()), files


def add_real_model(home: Place, record: ModelRecord, *, name: str) -> str:
    """Publish a detector with random weights, whose predictions are tame, and return its id."""
    num_parameters, files = _written(record)
    model_id = new_id()
    prefix = f"models/{model_id}/1"
    with home.sessions() as session:
        session.add(
            Model(
                id=model_id,
                name=name,
                architecture=record.architecture,
                classes=list(record.classes),
                input_size=list(record.input_size_hw),
                record=msgspec.to_builtins(record),
                parameters=num_parameters,
                storage_prefix=prefix,
            )
        )
        session.flush()
        for form, file in FORMATS.items():
            content = files[file]
            home.storage.write(f"{prefix}/{file}", io.BytesIO(content))
            session.add(
                ModelFile(
                    model_id=model_id,
                    format=form,
                    key=f"{prefix}/{file}",
                    size_bytes=len(content),
                    sha256=hashlib.sha256(content).hexdigest(),
                )
            )
        session.commit()
    return model_id
