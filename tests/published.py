"""A tiny model as it lies in the storage and the database after publishing."""

from __future__ import annotations

import hashlib
import io
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save

from app.database.session import create_database_engine, create_sessions
from app.database.tables import Model, ModelFile
from app.detect.wire import ServedModel, WeightsFile
from app.settings import Settings
from app.storage import Storage, open_storage
from detection.model_files import ONNX_FILE, WEIGHTS_FILE, read_record
from detection.model_record import ModelRecord
from detection.models import create_model
from detection.models.network import Network

CELL = 16
CLASSES = ("cat", "dog", "owl")
RECORD = ModelRecord(architecture="yolox-nano", classes=CLASSES, input_size_hw=(64, 96))


@cache
def tiny_graph(seed: int = 0) -> bytes:
    """Return an ONNX detector of one convolution: a box per cell of 16 pixels, scored by what lies there.

    Its signature is that of an exported network, but it is made in milliseconds.
    """
    height, width = RECORD.input_size_hw
    rows, columns = height // CELL, width // CELL
    weights = np.random.default_rng(seed).normal(0, 0.0005, (len(CLASSES), 3, CELL, CELL))
    tops, lefts = np.mgrid[0:rows, 0:columns] * CELL
    boxes = np.stack([lefts, tops, lefts + 1.5 * CELL, tops + 1.5 * CELL], axis=-1).reshape(1, -1, 4)
    constants = {
        "weights": weights.astype(np.float32),
        "grid": boxes.astype(np.float32),
        "scores_shape": np.array([0, len(CLASSES), rows * columns]),
        "one_per_picture": np.array([0, 1, 1]),
        "picture_axes": np.array([1, 2, 3]),
        "zero": np.array(0, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["logits"], strides=[CELL, CELL]),
        helper.make_node("Sigmoid", ["logits"], ["sigmoid"]),
        helper.make_node("Reshape", ["sigmoid", "scores_shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["scores"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["images", "picture_axes"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "one_per_picture"], ["nothings"]),
        helper.make_node("Add", ["grid", "nothings"], ["boxes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, height, width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("boxes", "scores")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def add_model(
    settings: Settings, model_id: str = "m1", *, alias: str | None = None, seed: int = 0
) -> ServedModel:
    """Publish a small model as a finished training would: files first, then its rows."""
    served = publish(open_storage(settings), model_id, seed=seed)
    _add_rows(settings, served, alias)
    return served


def _add_rows(settings: Settings, served: ServedModel, alias: str | None) -> None:
    engine = create_database_engine(settings)
    with create_sessions(engine)() as session:
        session.add(_model_row(served, alias))
        session.flush()
        session.add_all(_file_rows(served))
        session.commit()
    engine.dispose()


def add_real_model(settings: Settings, folder: Path, model_id: str = "real") -> ServedModel:
    """Publish what `write_model` left in a folder: weights and graph, as every job does."""
    storage = open_storage(settings)
    files = []
    for name, form in ((ONNX_FILE, "onnx"), (WEIGHTS_FILE, "safetensors")):
        content, key = (folder / name).read_bytes(), f"models/{model_id}/{name}"
        storage.write(key, io.BytesIO(content))
        files.append(WeightsFile(form, key, len(content), hashlib.sha256(content).hexdigest()))
    served = ServedModel(model_id, read_record(folder), tuple(files))
    _add_rows(settings, served, None)
    return served


def publish(storage: Storage, model_id: str = "m1", *, seed: int = 0) -> ServedModel:
    """Write the files of a model and return what the engine is told about it."""
    content = tiny_graph(seed)
    key = f"models/{model_id}/{ONNX_FILE}"
    storage.write(key, io.BytesIO(content))
    file = WeightsFile("onnx", key, len(content), hashlib.sha256(content).hexdigest())
    return ServedModel(model_id, RECORD, (file,))


def publish_weights(storage: Storage) -> ServedModel:
    """Write random weights of a real network, for the backend that runs the torch module."""
    torch.manual_seed(0)
    return _write_weights(storage, create_model(RECORD.architecture, num_classes=len(CLASSES)), RECORD)


def add_weights(settings: Settings, network: Network, record: ModelRecord) -> ServedModel:
    """Publish the weights of a network alone: no graph is exported, which takes long."""
    served = _write_weights(open_storage(settings), network, record)
    _add_rows(settings, served, None)
    return served


def _write_weights(storage: Storage, network: Network, record: ModelRecord) -> ServedModel:
    content = save(network.state_dict())
    key = f"models/weights/{WEIGHTS_FILE}"
    storage.write(key, io.BytesIO(content))
    file = WeightsFile("safetensors", key, len(content), hashlib.sha256(content).hexdigest())
    return ServedModel("weights", record, (file,))


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
