"""Seed every generator a training may touch, and choose between repeatable and fast kernels."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count

import cv2
import numpy as np
import torch

SEEDS = 2**31
"""Seeds are below it: the smallest range of the libraries' is that of OpenCV."""
WORKERS_PER_RANK = 1024
"""How far the seeds of two ranks' workers are apart; more threads than this prepare samples nowhere."""


def seed_everything(seed: int, *, deterministic: bool) -> str:
    """Seed Python, NumPy, torch and all devices; return a line for the log.

    Args:
        seed: any non-negative integer below 2**31.
        deterministic: on accelerators, kernels that give the same numbers every time, at the price of speed;
            an operation without such a kernel warns. Otherwise the fastest kernels are searched for. On a CPU
            the kernels that a training uses are repeatable anyway, for a given number of threads.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    cv2.setRNGSeed(seed)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic and torch.cuda.is_available(), warn_only=True)
    # Writing into memory before it is used finds bugs in torch, not in a training, and costs a fifth of it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    kernels = "deterministic kernels" if deterministic else "the fastest kernels, deterministic or not"
    return f"seed {seed}, {kernels}"


def worker_seed(seed: int, *, rank: int, worker: int) -> int:
    """Return the seed of one worker that prepares samples: the training's, and an offset of its own.

    No two workers of a training have the same one, on whatever rank. Neither has the seed itself, which is
    that of the threads that train.

    Args:
        rank: of the process, counted from 0.
        worker: within the process, counted from 0.
    """
    return (seed + 1 + rank * WORKERS_PER_RANK + worker % WORKERS_PER_RANK) % SEEDS


def worker_seeding(seed: int, *, rank: int) -> Callable[[], None]:
    """Return what each thread that prepares samples runs first: it takes the seed of the next worker.

    Samples are drawn from seed, epoch and position alone (`detection.data.draws`), whichever thread makes
    them; this is for a library that draws by itself. OpenCV is the only one of those in use here that keeps
    a generator per thread, seeded alike in all of them. The others' are one per process: `seed_everything`.
    """
    workers = count()

    def seed_worker() -> None:
        cv2.setRNGSeed(worker_seed(seed, rank=rank, worker=next(workers)))

    return seed_worker
