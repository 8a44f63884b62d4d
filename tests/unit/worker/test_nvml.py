"""Which accelerators a process sees; the driver is pretended, since a test cannot ask for one."""

from __future__ import annotations

import pytest

from tests.fake_driver import FakeDriver
from worker import nvml
from worker.nvml import Gpu, find_gpu, installed_gpus, visible_gpus

UUIDS = ("GPU-aa11", "GPU-aa22", "GPU-bb33", "GPU-cc44")
PART = "MIG-dd55"


@pytest.fixture(autouse=True)
def four_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "pynvml", FakeDriver(UUIDS, parts=[PART]))


def test_the_driver_is_asked_for_every_accelerator() -> None:
    assert [gpu.uuid for gpu in installed_gpus()] == list(UUIDS)
    assert installed_gpus()[1] == Gpu("GPU-aa22", "Card of GPU-aa22", 16 * 2**30, 2**30)


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (None, UUIDS),
        ("2,0", ("GPU-bb33", "GPU-aa11")),
        (" 3 , 1 ", ("GPU-cc44", "GPU-aa22")),
        ("GPU-bb33,GPU-aa11", ("GPU-bb33", "GPU-aa11")),
        ("GPU-b,2", ()),
        ("GPU-b,0", ("GPU-bb33", "GPU-aa11")),
        ("1,GPU-cc44", ("GPU-aa22", "GPU-cc44")),
        (PART, (PART,)),
        ("MIG-ee66", ()),
        ("GPU-aa", ()),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("GPU-aa11",)),
        ("1,4,0", ("GPU-aa22",)),
        ("1,1", ()),
        ("none", ()),
        ("²", ()),
    ],
    ids=str,
)
def test_visible_accelerators_are_numbered_as_cuda_does(wanted: str | None, seen: tuple[str, ...]) -> None:
    assert tuple(gpu.uuid for gpu in visible_gpus(wanted)) == seen


def test_one_is_found_by_its_name() -> None:
    found = find_gpu("GPU-bb33")
    assert found is not None
    assert found.name == "Card of GPU-bb33"
    assert find_gpu("GPU-none") is None


def test_no_driver_is_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "pynvml", FakeDriver(()))
    assert installed_gpus() == []
    assert visible_gpus("0") == []
    assert find_gpu("GPU-aa11") is None
