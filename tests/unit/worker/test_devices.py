"""Which devices a worker gives to its jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.jobs.states import Queue
from app.settings import Settings
from worker import devices
from worker.devices import slot_devices


@pytest.fixture
def two_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "accelerators", lambda: [{"index": 0}, {"index": 1}])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("device", "queue", "expected"),
    [
        ("auto", Queue.GPU, ["0", "1"]),
        ("auto", Queue.CPU, ["cpu", "cpu"]),
        ("cpu", Queue.CPU, ["cpu", "cpu"]),
        ("1", Queue.GPU, ["1"]),
        ("0, 1", Queue.GPU, ["0", "1"]),
        ("cpu", Queue.GPU, ["cpu"]),
    ],
)
@pytest.mark.usefixtures("two_accelerators")
def test_one_slot_per_device_or_several_on_the_cpu(
    tmp_path: Path, device: str, queue: Queue, expected: list[str]
) -> None:
    assert slot_devices(Settings(home=tmp_path, device=device), queue) == expected


def test_as_many_jobs_share_the_cpu_as_the_settings_say(tmp_path: Path) -> None:
    assert slot_devices(Settings(home=tmp_path, cpu_jobs=3), Queue.CPU) == ["cpu"] * 3


def test_a_host_without_accelerators_serves_both_queues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "accelerators", list)
    assert slot_devices(Settings(home=tmp_path), Queue.GPU) == ["cpu"]


def test_no_driver_is_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise devices.pynvml.NVMLError(devices.pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(devices.pynvml, "nvmlInit", no_driver)
    assert devices.accelerators() == []


def test_a_driver_is_asked_for_every_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        total, used = 80, 20

    class Driver:
        NVMLError = devices.pynvml.NVMLError
        nvmlInit = nvmlShutdown = staticmethod(lambda: None)
        nvmlDeviceGetCount = staticmethod(lambda: 2)
        nvmlDeviceGetHandleByIndex = staticmethod(lambda index: index)
        nvmlDeviceGetMemoryInfo = staticmethod(lambda handle: Memory)
        nvmlDeviceGetName = staticmethod(lambda handle: f"accelerator {handle}")

    monkeypatch.setattr(devices, "pynvml", Driver)
    assert devices.accelerators()[1] == {
        "index": 1,
        "name": "accelerator 1",
        "memory_total_bytes": 80,
        "memory_used_bytes": 20,
    }


def test_visible_accelerators_limit_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "accelerators", lambda: [{"index": index} for index in range(4)])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert devices._num_visible() == 2
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices._num_visible() == 4
