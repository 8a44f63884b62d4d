"""Every error that the library raises on purpose; the messages are written for users.

DetectionError
 |- UnknownNameError          lists the names that exist
 |- ConfigError               all faults at once, not the first
 |- DatasetFormatError        path, where (line or annotation), problem
 |- ArchiveError              a stable code, the entry, problem
 |- ImageError                one picture cannot be used
 |   |- UnsupportedImageError    not one of the kinds we read
 |   |- DamagedImageError        one of them, but broken
 |   `- ImageTooLargeError       refused from its header, before a pixel is decoded
 |- VideoError                a video cannot be read
 |   `- VideoTooLargeError        refused from what it says about itself
 |- DeviceError               lists the devices that exist
 |- BackendError              what the backend can do on that device
 |- CheckpointError           what the file holds and what was expected
 |- WeightsError              an imported weights file cannot become a model
 |- ExportError               an exported file does not compute what the model computes
 |- RankError                 another process of the same training failed
 `- TrainingDivergedError     step and the losses by name
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath


class DetectionError(Exception):
    """Base of all errors of the library. The message may be shown to a user as it is."""


class UnknownNameError(DetectionError):
    def __init__(self, kind: str, name: str, choices: Iterable[str]) -> None:
        self.kind, self.name, self.choices = kind, name, tuple(choices)
        super().__init__(f"unknown {kind} {name!r}; there are: {', '.join(self.choices)}")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a configuration."""

    pointer: str
    """JSON pointer into the configuration, for example `/optimizer/lr`."""
    problem: str
    """What is wrong, and what would be right."""


class ConfigError(DetectionError):
    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{fault.pointer}: {fault.problem}" for fault in self.faults))


class DatasetFormatError(DetectionError):
    def __init__(self, path: PurePath | str, where: str, problem: str) -> None:
        """`path` is empty when the dataset as a whole is meant."""
        self.path, self.where, self.problem = str(path), where, problem
        super().__init__(": ".join(filter(None, (self.path, where, problem))))


class ArchiveError(DetectionError):
    def __init__(self, code: str, entry: str, problem: str) -> None:
        self.code, self.entry, self.problem = code, entry, problem
        super().__init__(f"{entry}: {problem}" if entry else problem)


class ImageError(DetectionError):
    """One picture cannot be used; its neighbours can."""


class UnsupportedImageError(ImageError):
    """The bytes are not one of the picture kinds that Harrier reads (JPEG, PNG, WebP, BMP)."""


class DamagedImageError(ImageError):
    """The kind is known, but the picture cannot be decoded."""


class ImageTooLargeError(ImageError):
    """The header announces more pixels than allowed; nothing was decoded."""


class VideoError(DetectionError):
    """A file is no video that can be read here."""


class VideoTooLargeError(VideoError):
    """The file announces more, or larger, frames than allowed."""


class DeviceError(DetectionError):
    def __init__(self, spec: str, problem: str, devices: Iterable[str]) -> None:
        self.spec, self.devices = spec, tuple(devices)
        super().__init__(f"device {spec!r}: {problem}; there are: {', '.join(self.devices)}")


class BackendError(DetectionError):
    """A backend cannot use a device, or not in the precision that was asked for."""


class CheckpointError(DetectionError):
    """A checkpoint is missing, damaged, or belongs to another training."""


class NoSpaceError(CheckpointError):
    def __init__(self, bytes_needed: int, bytes_free: int) -> None:
        self.bytes_needed, self.bytes_free = bytes_needed, bytes_free
        super().__init__(
            f"a checkpoint needs {bytes_needed:,} free bytes in its folder, but there are {bytes_free:,}"
        )


class DeviceMemoryError(DetectionError):
    def __init__(self, batch_size: int, micro_batches: int) -> None:
        self.batch_size, self.micro_batches = batch_size, micro_batches
        super().__init__(
            f"the device ran out of memory with a batch of {batch_size} computed in {micro_batches} parts"
        )


class WeightsError(DetectionError):
    """An imported weights file cannot become a model."""


class ExportError(DetectionError):
    """An exported file does not compute what the model computes."""


class RankError(DetectionError):
    def __init__(self, rank: int, problem: str) -> None:
        self.rank, self.problem = rank, problem
        super().__init__(f"rank {rank} of the training failed: {problem}")


class MissingPackageError(DetectionError):
    """A library that is installed only where it is wanted is not installed here; the message says how to."""


class TrainingDivergedError(DetectionError):
    def __init__(self, step: int, losses: Mapping[str, float]) -> None:
        self.step, self.losses = step, dict(losses)
        parts = ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())
        super().__init__(f"the loss is no longer finite at step {step} ({parts})")
