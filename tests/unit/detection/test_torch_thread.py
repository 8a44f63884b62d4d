"""A torch module that computes with threads of its own, whatever the rest of the process does."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from detection.devices import CPU
from detection.inference.backends.eager import EagerBackend
from detection.models import create_served_model


class Counts:
    """Stands for a network that says with how many threads it is computed, and in which."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []

    def compute(self, images: Tensor) -> tuple[Tensor, ...]:
        self.seen.append((torch.get_num_threads(), threading.current_thread().name))
        return (images,)


def test_the_torch_module_has_threads_of_its_own_and_leaves_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def threads_of_a_new_thread() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    before, counts, images = torch.get_num_threads(), Counts(), torch.zeros(1, 3, 64, 64)
    network = create_served_model("yolox-nano", num_classes=2)
    many = EagerBackend(network, CPU, threads=before + 2)
    one = EagerBackend(network, CPU, threads=1)
    monkeypatch.setattr(many, "_compute", counts.compute)
    monkeypatch.setattr(one, "_compute", counts.compute)
    for backend in (many, one, many):
        assert backend.run(images)[0] is images
        assert (torch.get_num_threads(), threads_of_a_new_thread()) == (before, before)
    assert [threads for threads, _ in counts.seen] == [before + 2, 1, before + 2]
    assert threading.current_thread().name not in {name for _, name in counts.seen}
    monkeypatch.setattr(many, "_compute", lambda images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        many.run(images)


def test_the_thread_of_a_torch_module_goes_with_it() -> None:
    backend = EagerBackend(create_served_model("yolox-nano", num_classes=2), CPU, threads=1)
    assert backend._thread is not None
    (own,) = backend._thread._threads
    assert own.is_alive()
    del backend
    gc.collect()
    own.join(10)
    assert not own.is_alive()
