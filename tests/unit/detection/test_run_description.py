"""The first line of a job's log."""

from __future__ import annotations

import re

import torch

from detection.devices import CPU
from detection.run_description import describe_run


def test_code_torch_and_devices_are_named() -> None:
    line = describe_run((CPU,))
    assert re.fullmatch(rf"harrier \S+, torch {re.escape(torch.__version__)}, CPU", line)
