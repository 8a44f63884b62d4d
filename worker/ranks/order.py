"""What the ranks of a training are to do, and how it ended: files in the scratch folder of the attempt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from app.datasets.contents import DatasetContents
from app.storage import Storage
from detection.durable import write_durably
from detection.families.reading import read_config
from detection.input_convention import InputConvention
from detection.training.job import TrainingJob
from detection.training.progress import Paces
from detection.training.run import TrainingResult
from detection.training.state import StopReason, TrainingState
from worker.learnt import learnt_from
from worker.pictures import Pictures


class TrainingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A training in plain data: every rank makes the same `TrainingJob` of it."""

    job_id: str
    fence: int
    config: dict[str, Any]
    dataset_prefix: str
    """Where the storage has the dataset."""
    pictures: Path
    """Where pictures are kept that had to be fetched."""
    folder: Path
    meeting: Path
    """Where the ranks meet, once."""
    result: Path
    """Where the first rank writes how it ended."""
    initial_weights: Path | None
    convention: InputConvention | None
    until_step: int | None = None

    def training(self, storage: Storage) -> TrainingJob:
        """Return the training as the library takes it."""
        config = read_config(self.config)
        dataset, notes = learnt_from(DatasetContents(storage).manifest(self.dataset_prefix), config)
        return TrainingJob(
            config=config,
            dataset=dataset,
            notes=notes,
            read=Pictures(storage, self.dataset_prefix, self.pictures),
            folder=self.folder,
            initial_weights=self.initial_weights,
            convention=self.convention,
            until_step=self.until_step,
        )

    def write(self, path: Path) -> None:
        path.write_bytes(msgspec.json.encode(self, enc_hook=str))


def read_order(path: Path) -> TrainingOrder:
    return msgspec.json.decode(path.read_bytes(), type=TrainingOrder, dec_hook=_path)


class TrainingEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a training on ranks ended in good order."""

    reason: StopReason
    state: TrainingState
    paces: Paces

    @classmethod
    def of(cls, result: TrainingResult) -> TrainingEnd:
        return cls(reason=result.reason, state=result.state, paces=result.paces)

    def write(self, path: Path) -> None:
        write_durably(path, msgspec.msgpack.encode(self))


def read_end(path: Path) -> TrainingEnd:
    return msgspec.msgpack.decode(path.read_bytes(), type=TrainingEnd)


def _path(kind: type, value: str) -> Path:
    if kind is not Path:
        raise NotImplementedError(f"a training order holds no {kind.__name__}")
    return Path(value)
