"""What a choice of devices asks for: any, the CPU, or accelerators by number. Plain Python."""

from __future__ import annotations

from dataclasses import dataclass

from detection.errors import DeviceError

AUTO, CPU = "auto", "cpu"


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """A choice that was understood; whether there are such devices is for whoever has them to say."""

    word: str
    """`auto`, `cpu`, or empty where accelerators are listed."""
    numbers: tuple[int, ...] = ()
    """Of the accelerators that are listed, in that order."""


def read_choice(spec: str, existing: tuple[str, ...]) -> DeviceChoice:
    """Return what `spec` asks for: `auto` or empty, `cpu`, or `0`, `0,1`, `cuda:0`; words in any case.

    Args:
        existing: the devices that an error names as those that there are.

    Raises:
        DeviceError: it is none of these, or names a device twice.
    """
    wanted = spec.strip().lower()
    if wanted in ("", AUTO):
        return DeviceChoice(AUTO)
    if wanted == CPU:
        return DeviceChoice(CPU)
    numbers = tuple(_number(part.strip(), spec, existing) for part in wanted.split(","))
    if len(set(numbers)) != len(numbers):
        raise DeviceError(spec, "a device is named twice", existing)
    return DeviceChoice("", numbers)


def _number(part: str, spec: str, existing: tuple[str, ...]) -> int:
    number = part.removeprefix("cuda:")
    if not (number.isascii() and number.isdigit()):
        raise DeviceError(spec, f"{part!r} is neither a number nor `auto` or `cpu`", existing)
    return int(number)
