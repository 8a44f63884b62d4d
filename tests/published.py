"""A small model as it lies in the storage after publishing: random weights, but real files."""

from __future__ import annotations

import hashlib
import io
from functools import cache

import msgspec
import torch
from safetensors.torch import save

from app.database.session import create_database_engine, create_sessions
from app.database.tables import Model, ModelFile
from app.detect.wire import ServedModel, WeightsFile
from app.settings import Settings
from app.storage import Storage, open_storage
from detection.deploy.export import export_onnx
from detection.model_files import ONNX_FILE, WEIGHTS_FILE
from detection.model_record import ModelRecord
from detection.models import create_model

CLASSES = ("cat", "dog", "owl")
RECORD = ModelRecord(architecture="yolox-nano", classes=CLASSES, input_size_hw=(64, 96))


@cache
def model_files(seed: int = 0) -> dict[str, tuple[str, bytes]]:
    """Return format, file name and content of a network whose scores differ from place to place."""
    torch.manual_seed(seed)
    detector = create_model(RECORD.architecture, num_classes=len(CLASSES))
    for layer in detector.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for _ in range(20):
            detector(torch.rand(2, 3, 64, 96) * 255)
    detector.eval()
    return {
        "onnx": (ONNX_FILE, export_onnx(detector, RECORD)),
        "safetensors": (WEIGHTS_FILE, save(detector.state_dict())),
    }


def add_model(
    settings: Settings, model_id: str = "m1", *, alias: str | None = None, seed: int = 0
) -> ServedModel:
    """Publish a small model as a finished training would: files first, then its rows."""
    served = publish(open_storage(settings), model_id, seed=seed)
    engine = create_database_engine(settings)
    with create_sessions(engine)() as session:
        session.add(_model_row(served, alias))
        session.flush()
        session.add_all(_file_rows(served))
        session.commit()
    engine.dispose()
    return served


def publish(storage: Storage, model_id: str = "m1", *, seed: int = 0) -> ServedModel:
    """Write the files of a model and return what the engine is told about it."""
    files = []
    for form, (name, content) in model_files(seed).items():
        key = f"models/{model_id}/{name}"
        storage.write(key, io.BytesIO(content))
        files.append(WeightsFile(form, key, len(content), hashlib.sha256(content).hexdigest()))
    return ServedModel(model_id, RECORD, tuple(files))


def _model_row(served: ServedModel, alias: str | None) -> Model:
    return Model(
        id=served.id,
        name=served.id,
        alias=alias,
        architecture=served.record.architecture,
        classes=list(served.record.classes),
        input_size=list(served.record.input_size_hw),
        record=msgspec.to_builtins(served.record),
        parameters=1,
        storage_prefix=f"models/{served.id}/",
    )


def _file_rows(served: ServedModel) -> list[ModelFile]:
    return [
        ModelFile(
            model_id=served.id,
            format=file.format,
            key=file.key,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
        )
        for file in served.files
    ]
