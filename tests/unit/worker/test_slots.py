"""Devices are given to one job at a time, and the CPU to a number of them."""

from __future__ import annotations

import pytest

from app.jobs.line import Begins, Waits
from app.jobs.protocol import Device
from detection.device_choice import AUTO, DeviceChoice
from worker.slots import Slots

GPUS = [Device(str(number), "card", 16, f"GPU-{number}") for number in range(3)]


def test_an_accelerator_goes_to_one_job_at_a_time() -> None:
    slots = Slots(GPUS)
    assert slots.take(("0", "1"), "first")
    assert not slots.take(("1", "2"), "second"), "all of them, or none"
    assert slots.take(("2",), "third")
    assert not slots.all_free
    slots.give_back(("0", "1"), "first")
    assert slots.take(("1",), "second")


def test_the_cpu_goes_to_a_number_of_jobs() -> None:
    slots = Slots(cpu_jobs=2)
    assert [slots.take(("cpu",), job) for job in ("a", "b", "c")] == [True, True, False]
    slots.give_back(("cpu",), "a")
    assert slots.take(("cpu",), "c")
    assert slots.size == 2


def test_a_job_on_an_accelerator_leaves_no_cores_to_one_that_is_not_there() -> None:
    assert (Slots(GPUS).size, Slots(GPUS).sharing) == (4, 3)
    assert Slots(cpu_jobs=2).sharing == 2


def test_what_was_not_given_cannot_be_given_back() -> None:
    with pytest.raises(ValueError, match="not in list"):
        Slots().give_back(("cpu",), "nobody's")


def test_the_lines_begin_with_those_who_have_a_device_here_or_elsewhere() -> None:
    slots = Slots(GPUS)
    slots.take(("1",), "mine")
    line = slots.line({"GPU-0": "another worker's", "GPU-9": "on no device of ours"})
    assert line.join("next", DeviceChoice("", (0,))) == Waits("0", "another worker's", running=True)
    assert line.join("after it", DeviceChoice("", (1,))) == Waits("1", "mine", running=True)
    assert line.join("any", DeviceChoice(AUTO)) == Begins(("2",))


def test_numbers_stand_for_devices() -> None:
    cpu = Device("cpu", "Fast Core", 64)
    assert Slots(GPUS, cpu=cpu).devices(("2", "cpu")) == [GPUS[2], cpu]
