"""One seed for every generator."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import cv2
import numpy as np
import pytest
import torch

from detection.training.seeds import SEEDS, WORKERS_PER_RANK, seed_everything, worker_seed, worker_seeding


def _opencv_draw() -> int:
    return int(cv2.randu(np.zeros((1, 1), np.int32), 0, 2**30)[0, 0])


def _draw() -> tuple[float, float, float, int]:
    return random.random(), float(np.random.rand()), float(torch.rand(())), _opencv_draw()


def test_the_same_seed_gives_the_same_draws_everywhere() -> None:
    seed_everything(7, deterministic=True)
    first = _draw()
    seed_everything(7, deterministic=False)
    assert _draw() == first
    seed_everything(8, deterministic=False)
    assert all(other != one for other, one in zip(_draw(), first, strict=True))


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("accelerated", [True, False])
def test_deterministic_chooses_the_kernels_of_accelerators(
    monkeypatch: pytest.MonkeyPatch, deterministic: bool, accelerated: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: accelerated)
    seed_everything(0, deterministic=deterministic)
    assert torch.are_deterministic_algorithms_enabled() is (deterministic and accelerated)
    assert torch.backends.cudnn.benchmark is not deterministic


def test_the_log_says_which_seed_and_which_kernels() -> None:
    assert seed_everything(7, deterministic=True) == "seed 7, deterministic kernels"
    assert seed_everything(7, deterministic=False) == "seed 7, the fastest kernels, deterministic or not"


@pytest.mark.parametrize("seed", [0, 7, SEEDS - 1])
def test_no_two_workers_have_the_same_seed_whatever_their_rank(seed: int) -> None:
    seeds = [worker_seed(seed, rank=rank, worker=worker) for rank in range(16) for worker in range(8)]
    assert len({seed, *seeds}) == 1 + len(seeds)
    assert all(0 <= each < SEEDS for each in seeds)


def test_a_workers_seed_is_the_trainings_and_an_offset() -> None:
    assert worker_seed(100, rank=0, worker=0) == 101
    assert worker_seed(100, rank=2, worker=3) == 101 + 2 * WORKERS_PER_RANK + 3


def test_every_thread_that_prepares_samples_begins_with_a_seed_of_its_own() -> None:
    def first_draw_with(seed: int) -> int:
        cv2.setRNGSeed(seed)
        return _opencv_draw()

    expected = {first_draw_with(worker_seed(5, rank=1, worker=worker)) for worker in range(3)}
    together = Barrier(3)

    def draw(_: int) -> int:
        together.wait(10)  # so that each thread draws once
        return _opencv_draw()

    with ThreadPoolExecutor(3, initializer=worker_seeding(5, rank=1)) as pool:
        drawn = set(pool.map(draw, range(3)))
    assert drawn == expected
    assert len(expected) == 3
