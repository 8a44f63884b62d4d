"""Detectors as the protocol describes models: a name is an id or alias, its version the model's id."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Model
from app.v2.inputs import BYTES, IMAGE
from app.v2.outputs import ANY, OUTPUTS
from app.v2.schemas import IndexEntry, ModelConfiguration, ModelMetadata, TensorConfiguration, TensorMetadata
from app.v2.tensors import Datatype
from detection.tasks import Task

PLATFORM = "harrier"
READY = "READY"
TYPES_OF_TRITON: dict[Datatype, str] = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "INT32": "TYPE_INT32"}

INPUTS = (TensorMetadata(name=IMAGE, datatype=BYTES, shape=[ANY]),)
RESULTS = tuple(
    TensorMetadata(name=name, datatype=output.datatype, shape=list(output.shape))
    for name, output in OUTPUTS.items()
)


def metadata(name: str, model_id: str) -> ModelMetadata:
    """Return what the protocol says about a model."""
    return ModelMetadata(
        name=name, versions=[model_id], platform=PLATFORM, inputs=list(INPUTS), outputs=list(RESULTS)
    )


def configuration(name: str) -> ModelConfiguration:
    """Return what Triton would say about how a model is set up."""
    return ModelConfiguration(
        name=name,
        platform=PLATFORM,
        backend=PLATFORM,
        max_batch_size=0,
        input=[_configured(each) for each in INPUTS],
        output=[_configured(each) for each in RESULTS],
    )


def index(session: Session) -> Iterator[IndexEntry]:
    """Yield every name by which a detector can be asked, the newest model first."""
    query = select(Model.id, Model.alias).where(Model.task == Task.DETECT).order_by(Model.id.desc())
    for model_id, alias in session.execute(query):
        for name in (model_id, alias):
            if name is not None:
                yield IndexEntry(name=name, version=model_id, state=READY, reason="")


def _configured(tensor: TensorMetadata) -> TensorConfiguration:
    return TensorConfiguration(
        name=tensor.name, data_type=TYPES_OF_TRITON[tensor.datatype], dims=tensor.shape
    )
