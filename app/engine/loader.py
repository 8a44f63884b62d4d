"""Models in memory: loaded once, warmed before they take pictures, the least recently used go first."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import structlog

from app.detect.wire import Refusal, ServedModel, WeightsFile
from app.engine.device import Device
from app.engine.refusal import RefusedError
from app.storage import Storage
from detection.inference.backends import BACKENDS, Backend
from detection.inference.predictor import Predictor
from detection.inference.second_stage import CropClassifier
from detection.model_files import ONNX_FILE, WEIGHTS_FILE
from detection.tasks import Task

FILE_OF_BACKEND = {"onnxruntime": ("onnx", ONNX_FILE), "eager": ("safetensors", WEIGHTS_FILE)}
"""The format of a model's file that each backend reads, and the name it must have."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready for pictures, in one copy or two."""

    predictor: Predictor
    """Computes one batch with all the threads there are."""
    narrow: Predictor
    """Computes with one thread, so that as many batches as cores run side by side; else the same object."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LoadedClassifier:
    """The same of a classifier."""

    classifier: CropClassifier
    narrow: CropClassifier
    size_bytes: int


class Loader:
    """Loads models from the storage; knows nothing of batches."""

    def __init__(self, storage: Storage, device: Device, *, scratch: Path, max_pixels: int) -> None:
        self._storage, self._device = storage, device
        self._scratch, self._max_pixels = scratch, max_pixels

    def load(self, model: ServedModel) -> LoadedModel | LoadedClassifier:
        """Check the file's sha256, load it and run it once on nothing.

        Raises:
            RefusedError: the file is missing or damaged.
        """
        format_name, file_name = FILE_OF_BACKEND[self._device.backend]
        wanted = next((file for file in model.files if file.format == format_name), None)
        if wanted is None:
            raise _unavailable(model, f"has no {format_name} file")
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            try:
                source = self._storage.local_path(wanted.key, Path(folder))
                damaged = _sha256(source) != wanted.sha256
            except FileNotFoundError:
                raise _unavailable(model, f"has lost its {format_name} file") from None
            if damaged:
                raise _unavailable(model, f"has a damaged {format_name} file")
            served = Path(folder) / "served"
            served.mkdir()
            (served / file_name).symlink_to(source)
            return self._load_folder(served, model, wanted)

    def _load_folder(
        self, folder: Path, model: ServedModel, file: WeightsFile
    ) -> LoadedModel | LoadedClassifier:
        copies = 2 if self._device.streams > 1 else 1
        if model.record.task is Task.CLASSIFY:
            classifier = self._classifier(folder, model, threads=None)
            narrow = self._classifier(folder, model, threads=1) if copies > 1 else classifier
            return LoadedClassifier(classifier, narrow, file.size_bytes * copies)
        predictor = self._predictor(folder, model, threads=None)
        narrow_one = self._predictor(folder, model, threads=1) if copies > 1 else predictor
        return LoadedModel(predictor, narrow_one, file.size_bytes * copies)

    def _classifier(self, folder: Path, model: ServedModel, *, threads: int | None) -> CropClassifier:
        classifier = CropClassifier(self._backend(folder, model, threads), model.record)
        classifier.warm_up()
        return classifier

    def _backend(self, folder: Path, model: ServedModel, threads: int | None) -> Backend:
        load = BACKENDS[self._device.backend]
        return load(folder, model.record, device=self._device.torch_device, threads=threads)

    def _predictor(self, folder: Path, model: ServedModel, *, threads: int | None) -> Predictor:
        backend = self._backend(folder, model, threads)
        predictor = Predictor(backend, model.record, max_pixels=self._max_pixels)
        for batch_size in {1, self._device.batch_size}:
            predictor.warm_up(batch_size)
        return predictor


class Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


Loaded = TypeVar("Loaded", bound=Sized)


class ModelCache(Generic[Loaded]):
    """The models in memory, by id, up to a number of bytes; the newest stays even when it alone is larger."""

    def __init__(self, load: Callable[[ServedModel], Awaitable[Loaded]], *, max_bytes: int) -> None:
        self._load, self._max_bytes = load, max_bytes
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Loaded]] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._loaded)

    @property
    def size_bytes(self) -> int:
        return sum(model.size_bytes for model in self._loaded.values())

    async def get(self, model: ServedModel) -> Loaded:
        """Return the model; the first of several askers loads it, the others wait for the same.

        Raises:
            RefusedError: it cannot be loaded.
        """
        loaded = self._loaded.get(model.id)
        if loaded is not None:
            self._loaded.move_to_end(model.id)
            return loaded
        loading = self._loading.get(model.id)
        if loading is None:
            loading = self._loading[model.id] = asyncio.create_task(self._load_one(model))
        return await asyncio.shield(loading)

    async def _load_one(self, model: ServedModel) -> Loaded:
        attempt = asyncio.ensure_future(self._load(model))
        await asyncio.wait({attempt})
        del self._loading[model.id]
        error = attempt.exception()
        if error is not None:
            log.error("model cannot be loaded", model_id=model.id, exc_info=error)
            raise error if isinstance(error, RefusedError) else _unavailable(model, "cannot be loaded")
        loaded = self._loaded[model.id] = attempt.result()
        self._evict(keep=model.id)
        log.info("model loaded", model_id=model.id, architecture=model.record.architecture)
        return loaded

    def _evict(self, *, keep: str) -> None:
        while self.size_bytes > self._max_bytes and next(iter(self._loaded)) != keep:
            evicted, _ = self._loaded.popitem(last=False)
            log.info("model evicted", model_id=evicted)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unavailable(model: ServedModel, problem: str) -> RefusedError:
    return RefusedError(Refusal.MODEL_UNAVAILABLE, f"the model {model.id} {problem}")
