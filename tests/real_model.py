"""A model of a real architecture in a home, written as a finished training would write it."""

from __future__ import annotations

import hashlib
import tempfile
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


def add_real_model(home: Place, record: ModelRecord, *, name: str) -> str:
    """Publish a detector with random weights, whose predictions are tame, and return its id."""
    torch.manual_seed(0)
    detector, model_id = create_served_model(record.architecture, num_classes=len(record.classes)), new_id()
    with torch.no_grad():
        for entry, weight in detector.named_parameters():
            if "_preds." in entry and entry.endswith("weight"):
                weight.mul_(0.01)
    prefix = f"models/{model_id}/1"
    with tempfile.TemporaryDirectory() as name_of_folder, home.sessions() as session:
        folder = Path(name_of_folder)
        write_model(detector, record, folder)
        session.add(
            Model(
                id=model_id,
                name=name,
                architecture=record.architecture,
                classes=list(record.classes),
                input_size=list(record.input_size_hw),
                record=msgspec.to_builtins(record),
                parameters=sum(each.numel() for each in detector.parameters()),
                storage_prefix=prefix,
            )
        )
        session.flush()
        for form, file in FORMATS.items():
            content = (folder / file).read_bytes()
            with (folder / file).open("rb") as opened:
                home.storage.write(f"{prefix}/{file}", opened)
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
