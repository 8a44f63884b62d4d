"""Keep a training's checkpoints so that a kill, a full disk or a flipped bit never costs more than one.

A file's name carries the beginning of its sha256, so each can be trusted or not by itself; the manifest says
which is the newest and which the best. A file is complete before the manifest names it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from detection.durable import remove_temporary_files, sha256_of, write_durably
from detection.errors import CheckpointError, NoSpaceError

MANIFEST = "manifest.json"
FILES = "step-*-*.pt"
HASH_DIGITS = 16
FORMAT = 1
KEPT = 2
"""Newest checkpoints that are kept, besides the best."""
SAVE_ATTEMPTS = 3
BACKOFF_S = 1.0

Payload = dict[str, Any]
"""Nothing but tensors, numbers, strings, lists and dicts: it is read back with `weights_only=True`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which training a checkpoint belongs to; one of another training is never loaded."""

    config_sha256: str
    dataset_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One checkpoint file as the manifest lists it."""

    file: str
    step: int
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The checkpoints of one training, by increasing step; the last one is where it goes on."""

    identity: Identity
    checkpoints: tuple[Entry, ...] = ()
    best: str | None = None
    """Name of the file with the best weights, or None when nothing was measured."""
    format: int = FORMAT

    latest: str | None = None
    """Name of the newest file, the last of `checkpoints`."""

    def with_newest(self, entry: Entry, *, best: bool) -> Manifest:
        """Return the manifest after a save: the last two and the best are kept."""
        best_file = entry.file if best else self.best
        older = [each for each in self.checkpoints if each.step < entry.step]
        recent = {each.file for each in older[len(older) - KEPT + 1 :]}
        kept = [each for each in older if each.file in recent or each.file == best_file]
        return replace(self, checkpoints=(*kept, entry), best=best_file, latest=entry.file)


class CheckpointStore:
    """The checkpoints in one folder."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        *,
        log: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Open the folder, make it if needed, and remove what killed saves have left.

        Raises:
            CheckpointError: the folder belongs to another training.
        """
        self.folder, self._identity, self._log, self._sleep = folder, identity, log, sleep
        folder.mkdir(parents=True, exist_ok=True)
        for name in remove_temporary_files(folder):
            log(f"removed {name}, left by a save that did not end")
        self._manifest = self._read_manifest()
        if self._manifest.identity != identity:
            raise CheckpointError(
                "the checkpoints are of another training: its configuration or its pictures were others"
            )

    def save(self, payload: Payload, *, step: int, best: bool) -> Path:
        """Write a checkpoint, then make it the newest one, and the best one when `best`.

        A save that fails is tried again after a while. The last two and the best are kept.

        Raises:
            CheckpointError: a tensor is not finite, or the file cannot be written. Older ones are intact.
            NoSpaceError: there is not twice its size left.
        """
        if (name := find_non_finite(payload)) is not None:
            raise CheckpointError(f"a checkpoint of step {step} was refused: {name} is not finite")
        content = _serialise(payload)
        for attempt in range(1, SAVE_ATTEMPTS + 1):
            try:
                return self._save_once(content, step, best=best)
            except (OSError, NoSpaceError) as error:
                self._log(f"saving the checkpoint of step {step} failed, attempt {attempt}: {error}")
                failure = _failed_save(step, len(content), self.folder, error)
            if attempt < SAVE_ATTEMPTS:
                self._sleep(BACKOFF_S * 2 ** (attempt - 1))
        raise failure

    def load_latest(self) -> Payload | None:
        """Return the newest checkpoint that is intact, or None when none was ever saved.

        Raises:
            CheckpointError: there are checkpoints, but each is damaged.
        """
        entries = self._manifest.checkpoints
        for entry in reversed(entries):
            if (payload := self._load(entry)) is not None:
                return payload
        if entries:
            raise CheckpointError(
                f"all {len(entries)} checkpoints are damaged; there is nothing to go on from"
            )
        return None

    def load_best(self) -> Payload | None:
        """Return the checkpoint with the best weights, or the newest when none is best or that is damaged."""
        best = next((each for each in self._manifest.checkpoints if each.file == self._manifest.best), None)
        payload = self._load(best) if best else None
        return payload if payload is not None else self.load_latest()

    def _save_once(self, content: memoryview, step: int, *, best: bool) -> Path:
        needed, free = 2 * len(content), shutil.disk_usage(self.folder).free
        if free < needed:
            raise NoSpaceError(needed, free)
        path = self.folder / f"step-{step:09d}-{hashlib.sha256(content).hexdigest()[:HASH_DIGITS]}.pt"
        entry = Entry(file=path.name, step=step, sha256=write_durably(path, content), size_bytes=len(content))
        self._write_manifest(self._manifest.with_newest(entry, best=best))
        self._remove_unlisted()
        return path

    def _write_manifest(self, manifest: Manifest) -> None:
        write_durably(self.folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        self._manifest = manifest

    def _remove_unlisted(self) -> None:
        listed = {each.file for each in self._manifest.checkpoints}
        for path in self.folder.glob(FILES):
            if path.name not in listed:
                path.unlink(missing_ok=True)

    def _load(self, entry: Entry) -> Payload | None:
        """Return what a file holds, or None, with a line in the log, when it cannot be trusted."""
        path = self.folder / entry.file
        try:
            if sha256_of(path) != entry.sha256:
                self._log(f"{entry.file} is damaged: it is not what was written")
                return None
        except OSError as error:
            self._log(f"{entry.file} cannot be read: {error.strerror}")
            return None
        payload: Payload = torch.load(path, map_location="cpu", weights_only=True)
        if payload["identity"] != asdict(self._identity):
            raise CheckpointError(f"{entry.file} is of another training")
        if (name := find_non_finite(payload)) is not None:
            self._log(f"{entry.file} is refused: {name} is not finite")
            return None
        return payload

    def _read_manifest(self) -> Manifest:
        path = self.folder / MANIFEST
        if not path.exists():
            return self._manifest_of_files()
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except msgspec.MsgspecError as error:
            self._log(f"the manifest is damaged ({error}); the checkpoints are found by their names")
            return self._manifest_of_files()

    def _manifest_of_files(self) -> Manifest:
        """Rebuild the manifest from the files whose content is what their name says."""
        entries = [entry for path in sorted(self.folder.glob(FILES)) if (entry := _entry_of(path))]
        manifest = Manifest(identity=self._identity, checkpoints=tuple(entries))
        newest = self._load(entries[-1]) if entries else None
        best_step = newest["state"].get("best_step") if newest else None
        best = next((each.file for each in entries if each.step == best_step), None)
        return replace(manifest, best=best)


def find_non_finite(payload: Any, name: str = "checkpoint") -> str | None:
    """Return the name of a tensor somewhere in `payload` that holds a NaN or an infinity, or None."""
    if isinstance(payload, Tensor):
        finite = not payload.is_floating_point() or bool(payload.isfinite().all())
        return None if finite else name
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(payload, Mapping):
        parts = payload.items()
    elif isinstance(payload, list | tuple):
        parts = enumerate(payload)
    return next((bad for key, part in parts if (bad := find_non_finite(part, f"{name}.{key}"))), None)


def _serialise(payload: Payload) -> memoryview:
    # To memory first: torch turns a failing write into an error that no longer says why it failed.
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getbuffer()


def _failed_save(step: int, size: int, folder: Path, error: OSError | NoSpaceError) -> CheckpointError:
    if isinstance(error, NoSpaceError):
        return error
    if error.errno == errno.ENOSPC:
        return NoSpaceError(2 * size, shutil.disk_usage(folder).free)
    return CheckpointError(f"the checkpoint of step {step} could not be written: {error.strerror or error}")


def _entry_of(path: Path) -> Entry | None:
    _, step, digits = path.stem.split("-")
    sha256 = sha256_of(path)
    if not sha256.startswith(digits):
        return None
    return Entry(file=path.name, step=int(step), sha256=sha256, size_bytes=path.stat().st_size)
