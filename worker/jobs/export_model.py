"""Write a published model in a further format, and add the file to the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file
from sqlalchemy.orm import Session

from app.database.tables import ModelFile
from app.jobs.protocol import note_change
from detection.deploy.package import write_model, write_openvino_package
from detection.durable import sha256_of
from detection.model_files import ONNX_FILE
from detection.registry import Registry
from worker.attempt import Attempt
from worker.jobs.networks import load_network
from worker.stored_model import StoredModel, open_model

TORCH_FILE = "weights.pt"

Writer = Callable[[StoredModel, Path], Path]
"""Writes a model into a folder and returns the file. The weights themselves are there already."""

WRITERS: Registry[Writer] = Registry("export format")


def run(attempt: Attempt) -> None:
    model, wanted = open_model(attempt), str(attempt.job.config["format"])
    attempt.report.stage("exporting")
    folder = attempt.scratch / "exported"
    folder.mkdir()
    path = WRITERS[wanted](model, folder)
    file = {
        "model_id": model.id,
        "format": wanted,
        "key": f"{model.storage_prefix}/exports/{attempt.job.id}-{attempt.job.fence}/{path.name}",
        "size_bytes": path.stat().st_size,
        "sha256": sha256_of(path),
    }
    attempt.storage.adopt(str(file["key"]), path)
    attempt.succeed({"model_id": model.id, "format": wanted}, partial(_add, file))


@WRITERS.register("torch")
def write_torch(model: StoredModel, folder: Path) -> Path:
    """Write what `torch.load(weights_only=True)` reads: the weights under `model`, and the record."""
    path = folder / TORCH_FILE
    torch.save({"model": load_file(model.weights), "record": msgspec.to_builtins(model.record)}, path)
    return path


@WRITERS.register("onnx")
def write_onnx(model: StoredModel, folder: Path) -> Path:
    """Write the graph that every model is published with, checked against its weights."""
    write_model(load_network(model), model.record, folder)
    return folder / ONNX_FILE


@WRITERS.register("openvino")
def write_openvino(model: StoredModel, folder: Path) -> Path:
    """Write the graph as OpenVINO reads it, checked against the weights; a zip."""
    return write_openvino_package(load_network(model), model.record, folder)


def _add(file: dict[str, object], session: Session) -> None:
    session.merge(ModelFile(**file))
    note_change(session, f"models/{file['model_id']}", {"status": "exported", "format": file["format"]})
