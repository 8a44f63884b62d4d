"""What a choice of devices says, wherever they are."""

from __future__ import annotations

import pytest

from detection.device_choice import AUTO, CPU, DeviceChoice, read_choice
from detection.errors import DeviceError


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("auto", DeviceChoice(AUTO)),
        ("", DeviceChoice(AUTO)),
        (" CPU ", DeviceChoice(CPU)),
        ("0", DeviceChoice("", (0,))),
        ("cuda:1, 0", DeviceChoice("", (1, 0))),
    ],
)
def test_a_choice_is_read(spec: str, expected: DeviceChoice) -> None:
    assert read_choice(spec, ()) == expected


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("0,cpu", "'cpu' is neither"),
        ("1,1", "named twice"),
        ("0,,1", "'' is neither"),
        ("-1", "'-1' is neither"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused_with_what_there_is(spec: str, problem: str) -> None:
    with pytest.raises(DeviceError, match=f"{problem}.*there are: auto, 0, cpu"):
        read_choice(spec, ("auto", "0", "cpu"))
