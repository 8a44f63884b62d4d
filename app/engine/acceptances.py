"""Which backend was accepted for which model on this machine: a small file, so that a restart knows it."""

from __future__ import annotations

import fcntl
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import structlog

from detection.durable import write_durably
from detection.inference.agreement import Agreement
from detection.inference.backends import BACKENDS
from detection.inference.serving import ServingShape

MOST_REMEMBERED = 1000

log = structlog.get_logger(__name__)


class Acceptance(msgspec.Struct, frozen=True):
    """What a trial of a backend for a model came to."""

    accepted: bool
    reason: str
    """For people."""
    agreement: Agreement


class Acceptances:
    """A trial counts for one model, backend and precision, the library's version and the hardware.

    Several engines may keep one file: each adds to what is there, one after the other.
    """

    def __init__(self, file: Path, *, hardware: str) -> None:
        """Read what earlier processes found out; a file that cannot be read is begun anew.

        Args:
            hardware: what the processor or the accelerator is called.
        """
        self._file, self._hardware = file, hardware
        self._kept = _read(file)
        self._known = dict(self._kept)

    def find(self, model_id: str, shape: ServingShape) -> Acceptance | None:
        return self._known.get(self._key(model_id, shape))

    def add(
        self, model_id: str, shape: ServingShape, acceptance: Acceptance, *, lasting: bool = True
    ) -> None:
        """Remember a trial; a file that cannot be written costs another trial after a restart.

        Args:
            lasting: whether another process would come to the same.
        """
        key = self._key(model_id, shape)
        self._known[key] = acceptance
        if lasting:
            try:
                self._write(key, acceptance)
            except OSError as error:
                log.warning("what was accepted cannot be kept", file=str(self._file), reason=str(error))

    def _key(self, model_id: str, shape: ServingShape) -> str:
        return f"{model_id} {shape.executor} {_version(shape.backend)} on {self._hardware}"

    def _write(self, key: str, acceptance: Acceptance) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._kept |= _read(self._file) | {key: acceptance}
            newest = dict(list(self._kept.items())[-MOST_REMEMBERED:])
            write_durably(self._file, msgspec.json.format(msgspec.json.encode(newest)))


def _read(file: Path) -> dict[str, Acceptance]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Acceptance])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        log.warning("what was accepted is tried anew", file=str(file), reason=str(error))
        return {}


@cache
def _version(backend: str) -> str:
    package = BACKENDS[backend].package
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # brought along under another name, as by a system's own packages
        return package
