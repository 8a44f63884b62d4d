"""How a model is served: by which backend, how exactly, in how many streams. Plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from detection.errors import UnknownNameError


class Precision(StrEnum):
    """What a backend computes with; its inputs and outputs are float32 all the same."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


@dataclass(frozen=True, slots=True)
class ServingShape:
    """One way to serve a model on a device. A plan pins one to a model; else the device has its own."""

    backend: str
    """A name of `BACKENDS`."""
    precision: Precision
    streams: int
    """Batches that run side by side."""
    threads: int
    """Of each stream. Where calls of the backend run side by side, a picture that is alone gets all cores."""
    batch_size: int
    """Most pictures in one batch."""

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.executor}, {self.streams} x {threads}, batches of {self.batch_size}"

    @property
    def executor(self) -> str:
        """Backend and precision as the setting names them: `openvino:bf16`; plainly when it is fp32."""
        return executor_name(self.backend, self.precision)


def executor_name(backend: str, precision: Precision) -> str:
    """Return how a setting and an answer name a backend in a precision; fp32 goes without saying."""
    return backend if precision is Precision.FP32 else f"{backend}:{precision.value}"


def read_executor(name: str) -> tuple[str, Precision]:
    """Return backend and precision of a name like `openvino` or `openvino:bf16`.

    Raises:
        UnknownNameError: there is no such precision; whether there is such a backend `BACKENDS` knows.
    """
    backend, colon, precision = name.partition(":")
    known = [each.value for each in Precision]
    if colon and precision not in known:
        raise UnknownNameError("precision", precision, known)
    return backend, Precision(precision) if colon else Precision.FP32
