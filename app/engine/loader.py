"""Models in memory: loaded once, warmed before they take pictures, the least recently used go first."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
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
from detection.tasks import Task

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

    def load(self, model: ServedModel, backend: str | None = None) -> LoadedModel | LoadedClassifier:
        """Check the file's sha256, load it and run it once on nothing.

        Args:
            backend: None is the device's own.

        Raises:
            RefusedError: the file is missing or damaged.
        """
        backend = backend or self._device.backend
        needed = BACKENDS[backend].file
        wanted = next((file for file in model.files if file.format == needed.format), None)
        if wanted is None:
            raise _unavailable(model, f"has no {needed.format} file")
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            try:
                source = self._storage.local_path(wanted.key, Path(folder))
                damaged = _sha256(source) != wanted.sha256
            except FileNotFoundError:
                raise _unavailable(model, f"has lost its {needed.format} file") from None
            if damaged:
                raise _unavailable(model, f"has a damaged {needed.format} file")
            served = Path(folder) / "served"
            served.mkdir()
            (served / needed.name).symlink_to(source)
            return self._load_folder(served, model, wanted, backend)

    def _load_folder(
        self, folder: Path, model: ServedModel, file: WeightsFile, backend: str
    ) -> LoadedModel | LoadedClassifier:
        # A second backend computes with the threads that torch has in this process.
        copies = 2 if self._device.streams > 1 and backend == self._device.backend else 1
        if model.record.task is Task.CLASSIFY:
            classifier = self._classifier(folder, model, backend, threads=None)
            narrow = self._classifier(folder, model, backend, threads=1) if copies > 1 else classifier
            return LoadedClassifier(classifier, narrow, file.size_bytes * copies)
        predictor = self._predictor(folder, model, backend, threads=None)
        narrow_one = self._predictor(folder, model, backend, threads=1) if copies > 1 else predictor
        return LoadedModel(predictor, narrow_one, file.size_bytes * copies)

    def _classifier(
        self, folder: Path, model: ServedModel, backend: str, *, threads: int | None
    ) -> CropClassifier:
        classifier = CropClassifier(self._backend(folder, model, backend, threads), model.record)
        classifier.warm_up()
        return classifier

    def _backend(self, folder: Path, model: ServedModel, name: str, threads: int | None) -> Backend:
        return BACKENDS[name].load(folder, model.record, device=self._device.torch_device, threads=threads)

    def _predictor(self, folder: Path, model: ServedModel, backend: str, *, threads: int | None) -> Predictor:
        loaded = self._backend(folder, model, backend, threads)
        predictor = Predictor(loaded, model.record, max_pixels=self._max_pixels)
        for batch_size in {1, self._device.batch_size}:
            predictor.warm_up(batch_size)
        return predictor


class Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


Loaded = TypeVar("Loaded", bound=Sized)


class ModelCache(Generic[Loaded]):
    """The models in memory, up to a number of bytes; the newest stays even when it alone is larger.

    A model may be there once for each backend that runs it.
    """

    def __init__(self, load: Callable[[ServedModel, str], Awaitable[Loaded]], *, max_bytes: int) -> None:
        self._load, self._max_bytes = load, max_bytes
        self._loaded: OrderedDict[tuple[str, str], Loaded] = OrderedDict()
        self._loading: dict[tuple[str, str], asyncio.Task[Loaded]] = {}
        self._held: set[tuple[str, str]] = set()

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the models, each once, the least recently used first."""
        return tuple(dict.fromkeys(model_id for model_id, _ in self._loaded))

    @property
    def size_bytes(self) -> int:
        return sum(model.size_bytes for model in self._loaded.values())

    def has(self, model: ServedModel, backend: str) -> bool:
        """Return whether `get` would return at once."""
        return (model.id, backend) in self._loaded

    def hold(self, models: Sequence[tuple[ServedModel, str]]) -> None:
        """Evict anything but these models, and load those of them that are not there."""
        self._held = {(model.id, backend) for model, backend in models}
        self._evict()
        for model, backend in models:
            self.load_beside(model, backend)

    def load_beside(self, model: ServedModel, backend: str) -> None:
        """Begin to load a model that nobody waits for; a failure is in the log, and `get` tries again."""
        if not self.has(model, backend):
            self._start(model, backend).add_done_callback(_heard)

    async def get(self, model: ServedModel, backend: str) -> Loaded:
        """Return the model; the first of several askers loads it, the others wait for the same.

        Raises:
            RefusedError: it cannot be loaded.
        """
        key = model.id, backend
        loaded = self._loaded.get(key)
        if loaded is not None:
            self._loaded.move_to_end(key)
            return loaded
        return await asyncio.shield(self._start(model, backend))

    def _start(self, model: ServedModel, backend: str) -> asyncio.Task[Loaded]:
        key = model.id, backend
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = asyncio.create_task(self._load_one(model, backend))
        return loading

    async def _load_one(self, model: ServedModel, backend: str) -> Loaded:
        key = model.id, backend
        attempt = asyncio.ensure_future(self._load(model, backend))
        await asyncio.wait({attempt})
        del self._loading[key]
        error = attempt.exception()
        if error is not None:
            log.error("model cannot be loaded", model_id=model.id, exc_info=error)
            raise error if isinstance(error, RefusedError) else _unavailable(model, "cannot be loaded")
        loaded = self._loaded[key] = attempt.result()
        self._evict(newest=key)
        log.info("model loaded", model_id=model.id, architecture=model.record.architecture, backend=backend)
        return loaded

    def _evict(self, *, newest: tuple[str, str] | None = None) -> None:
        spare = [key for key in self._loaded if key not in self._held and key != newest]
        while spare and self.size_bytes > self._max_bytes:
            evicted, backend = key = spare.pop(0)
            del self._loaded[key]
            log.info("model evicted", model_id=evicted, backend=backend)


def _heard(loading: asyncio.Task[Loaded]) -> None:
    """Take note of an error that is in the log already."""
    if not loading.cancelled():
        loading.exception()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unavailable(model: ServedModel, problem: str) -> RefusedError:
    return RefusedError(Refusal.MODEL_UNAVAILABLE, f"the model {model.id} {problem}")
