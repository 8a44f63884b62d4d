"""What the jobs of a worker may compute on."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from app.jobs.states import Queue
from app.settings import Settings
from detection.errors import DeviceError
from tests.fake_driver import FakeDriver
from worker import nvml
from worker.context import create_context
from worker.devices import describe_accelerators, device_environment, open_slots, processor, seen_gpus
from worker.slots import Slots


@pytest.fixture(autouse=True)
def three_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "pynvml", FakeDriver(("GPU-a", "GPU-b", "GPU-c")))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def slots(folder: Path, queue: Queue = Queue.GPU, **values: object) -> Slots:
    return open_slots(Settings(home=folder, **values), queue, seen_gpus())


def offered(slots: Slots) -> list[tuple[str, str | None]]:
    return [(device.number, device.uuid) for device in slots.accelerators]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("auto", [("0", "GPU-a"), ("1", "GPU-b"), ("2", "GPU-c")]),
        ("1", [("1", "GPU-b")]),
        ("2, 0", [("2", "GPU-c"), ("0", "GPU-a")]),
        ("CUDA:1", [("1", "GPU-b")]),
        ("cpu", []),
    ],
)
def test_a_worker_has_the_accelerators_that_the_settings_name(
    tmp_path: Path, device: str, expected: list[tuple[str, str]]
) -> None:
    found = slots(tmp_path, device=device)
    assert offered(found) == expected
    assert found.size == len(expected) + 1, "and the CPU for whoever asks for it"


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [
        ("2,0", "auto", [("0", "GPU-c"), ("1", "GPU-a")]),
        ("GPU-b,GPU-a", "auto", [("0", "GPU-b"), ("1", "GPU-a")]),
        ("GPU-c,GPU-a,GPU-b", "0,2", [("0", "GPU-c"), ("2", "GPU-b")]),
        ("", "auto", []),
    ],
)
def test_numbers_are_those_that_a_process_sees(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str,
    device: str,
    expected: list[tuple[str, str]],
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert offered(slots(tmp_path, device=device)) == expected


def test_a_job_process_numbers_the_accelerators_as_its_worker_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    context = create_context(Settings(home=tmp_path, device="1"), Queue.GPU)
    assert context.device_environment == {
        "CUDA_VISIBLE_DEVICES": "GPU-c,GPU-a",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    assert device_environment([]) == {}


def test_settings_that_name_no_device_are_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"this host has no accelerator 7; there are: auto, 0, 1, 2, cpu"):
        slots(tmp_path, device="0,7")
    with pytest.raises(DeviceError, match="neither a number"):
        slots(tmp_path, device="gpu")


def test_jobs_of_the_queue_cpu_share_the_cpu(tmp_path: Path) -> None:
    found = slots(tmp_path, Queue.CPU, cpu_jobs=3)
    assert (found.size, found.accelerators) == (3, ())


def test_accelerators_are_described_as_they_are_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = slots(tmp_path, device="1,0").accelerators
    assert describe_accelerators(found)[0] == {
        "index": 1,
        "uuid": "GPU-b",
        "name": "Card of GPU-b",
        "memory_total_bytes": 16 * 2**30,
        "memory_used_bytes": 2**30,
    }
    for silent in (FakeDriver(("GPU-a",)), FakeDriver(())):
        monkeypatch.setattr(nvml, "pynvml", silent)
        there = {each["uuid"]: each["memory_used_bytes"] for each in describe_accelerators(found)}
        assert there == {"GPU-b": None, "GPU-a": 2**30 if silent.uuids else None}, "none is left out"


def test_the_processor_says_its_name(tmp_path: Path) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text("processor\t: 0\nmodel name\t: Fast Core 3\nmodel name\t: another\n")
    device = processor(facts)
    assert (device.number, device.name, device.uuid) == ("cpu", "Fast Core 3", None)
    assert 0 < (device.memory_bytes or 0) <= psutil.virtual_memory().total
    assert processor(tmp_path / "none").name, "its kind, where it has no name"
