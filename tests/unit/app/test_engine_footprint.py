"""How much memory is held and free where models lie; an accelerator is pretended."""

from __future__ import annotations

import pytest
import torch

from app.engine.footprint import give_back, memory_free, memory_in_use
from detection.devices import CPU

CARD = torch.device("cuda", 1)


def test_what_the_allocator_keeps_and_does_not_use_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
    assert (memory_in_use(CARD), memory_free(CARD)) == (70, 120)


def test_a_machine_has_its_own_memory() -> None:
    assert 0 < memory_in_use(CPU) < 2**50
    assert 0 < memory_free(CPU) < 2**50
    give_back(CPU)
