"""Seed every generator a training may touch, and choose between repeatable and fast kernels."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int, *, deterministic: bool) -> None:
    """Seed Python, NumPy, torch and all devices.

    Args:
        seed: any non-negative integer below 2**31.
        deterministic: kernels that give the same numbers every time, at the price of speed; otherwise the
            fastest kernels are searched for. An operation without a repeatable kernel warns.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
