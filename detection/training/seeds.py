"""Seed every generator a training may touch, and choose between repeatable and fast kernels."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int, *, deterministic: bool) -> None:
    """Seed Python, NumPy, torch and all devices.

    Args:
        seed: any non-negative integer below 2**31.
        deterministic: on accelerators, kernels that give the same numbers every time, at the price of speed;
            an operation without such a kernel warns. Otherwise the fastest kernels are searched for. On a CPU
            the kernels that a training uses are repeatable anyway.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic and torch.cuda.is_available(), warn_only=True)
    # Writing into memory before it is used finds bugs in torch, not in a training, and costs a fifth of it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
