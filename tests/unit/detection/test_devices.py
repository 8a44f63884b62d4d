"""Choosing a device; accelerators are pretended, since a test cannot ask for one."""

from __future__ import annotations

import types

import pytest
import torch

from detection.devices import CPU, available_devices, describe_devices, select_devices, wait_for
from detection.errors import DeviceError


@pytest.fixture
def two_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = types.SimpleNamespace(name="Fast Card", total_memory=16 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize("spec", ["auto", "", "AUTO", " cpu ", "CPU"])
def test_without_an_accelerator_the_cpu_is_chosen(spec: str) -> None:
    assert select_devices(spec) == (CPU,)


@pytest.mark.usefixtures("two_accelerators")
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("auto", ["cuda:0"]),
        ("cpu", ["cpu"]),
        ("1", ["cuda:1"]),
        ("cuda:0", ["cuda:0"]),
        ("0, 1", ["cuda:0", "cuda:1"]),
        ("CUDA:1,0", ["cuda:1", "cuda:0"]),
    ],
)
def test_accelerators_are_chosen_by_number(spec: str, expected: list[str]) -> None:
    assert [str(device) for device in select_devices(spec, batch_size=8)] == expected


@pytest.mark.usefixtures("two_accelerators")
@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("2", "there is no accelerator 2"),
        ("9999", "there is no accelerator 9999"),
        ("0,0", "named twice"),
        ("gpu", "neither a number"),
        ("-1", "neither a number"),
        ("0,", "neither a number"),
        ("²", "neither a number"),
        ("cuda", "neither a number"),
    ],
)
def test_a_wrong_device_is_an_error_that_lists_the_right_ones(spec: str, problem: str) -> None:
    with pytest.raises(DeviceError, match=problem) as caught:
        select_devices(spec)
    assert caught.value.devices == ("auto", "0", "1", "cpu")


@pytest.mark.usefixtures("two_accelerators")
def test_a_batch_must_divide_evenly_among_several_devices() -> None:
    with pytest.raises(DeviceError, match="a batch of 7"):
        select_devices("0,1", batch_size=7)
    assert len(select_devices("0", batch_size=7)) == 1


@pytest.mark.usefixtures("two_accelerators")
def test_devices_are_described_for_the_log() -> None:
    assert (
        describe_devices(select_devices("0,1"))
        == "CUDA:0 (Fast Card, 16384 MB), CUDA:1 (Fast Card, 16384 MB)"
    )
    assert describe_devices((CPU,)) == "CPU"
    assert available_devices()[-1] == CPU


def test_waiting_asks_the_accelerator_only_and_for_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(
        torch.cuda,
        "current_stream",
        lambda device: types.SimpleNamespace(synchronize=lambda: waited.append(device)),
    )
    wait_for(CPU)
    wait_for(torch.device("cuda", 1))
    assert waited == [torch.device("cuda", 1)]
