"""Errors that cross from one process to another keep their class, their message and their facts."""

from __future__ import annotations

import msgspec
import pytest

from detection.error_record import ErrorRecord, error_of, record_of
from detection.errors import (
    CheckpointError,
    ConfigError,
    DatasetFormatError,
    DetectionError,
    DeviceError,
    DeviceMemoryError,
    Fault,
    NoSpaceError,
    RankError,
    TrainingDivergedError,
    UnknownNameError,
)

ERRORS = [
    CheckpointError("all of them are damaged"),
    ConfigError([Fault("/a", "is wrong"), Fault("/b/0", "is missing")]),
    DatasetFormatError("a.xml", "line 3", "no box"),
    DeviceError("9", "there is no accelerator 9", ["auto", "cpu"]),
    DeviceMemoryError(8, 2),
    NoSpaceError(2_000, 1_000),
    RankError(1, "KeyError: 3"),
    TrainingDivergedError(7, {"loss": float("nan"), "box": 1.5}),
    UnknownNameError("kind", "x", ["y"]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was(error: DetectionError) -> None:
    record = msgspec.json.decode(msgspec.json.encode(record_of(error)), type=ErrorRecord)
    arrived = error_of(record)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived).keys() == vars(error).keys()
    if isinstance(error, ConfigError):
        assert isinstance(arrived, ConfigError)
        assert arrived.faults == error.faults
    if isinstance(error, DeviceMemoryError):
        assert vars(arrived) == vars(error)


class OfATestError(CheckpointError):
    """Unknown to the library."""


def test_an_error_of_nobody_becomes_the_nearest_that_is_known() -> None:
    assert type(error_of(record_of(OfATestError("x")))) is CheckpointError
    with pytest.raises(ValueError, match="SystemExit is no error"):
        error_of(ErrorRecord(kind="SystemExit", message="", facts={}))
