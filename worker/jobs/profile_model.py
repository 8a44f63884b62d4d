"""Profile a model: count it, time its parts forward and backward, and see how much memory that takes."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from detection.analysis.model_info import ModelInfo, model_info
from detection.analysis.modules import find_modules, module_class
from detection.analysis.peak_memory import peak_memory
from detection.analysis.profiler import WARM_UP_RUNS, OpRow, profile_parts, table_lines
from detection.analysis.sparsity import sparsity
from detection.errors import ConfigError, Fault
from detection.models.network import Network
from detection.training.memory import is_out_of_memory
from detection.training.reporting import ALL_SEEN
from worker.attempt import Attempt
from worker.jobs.device import begin_on_device
from worker.jobs.networks import load_network
from worker.memory import memory_limit_bytes
from worker.pace import Pace
from worker.stored_model import open_model

BYTES_OF_FLOAT = 4
GIB = 1024**3
TIMES_THE_INPUT = 20
"""What one run forward and backward holds at least, in inputs of single precision."""


def run(attempt: Attempt) -> None:
    config = attempt.job.config
    model, device = open_model(attempt), begin_on_device(attempt)
    network = load_network(model).to(device)
    found = _found(network, config["type"])
    height, width = config["input_size"]
    info = model_info(network, (height, width))
    attempt.report.line(info.summary())
    attempt.report.stage("profiling")
    counted = _counted(info, sparsity(network), verbose=config["verbose"])
    if device.type == "cpu":
        check_room(config["batch_size"], (height, width), memory_bytes=memory_limit_bytes())
    try:
        measured = _measured(attempt, network, _images(config, device))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise _too_large(config["batch_size"], (height, width), "the device's memory") from error
    wanted = {name: config[name] for name in ("input_size", "batch_size", "runs", "half")}
    result = {"model_id": model.id, "device": str(device), **wanted, **counted, **measured, "modules": found}
    attempt.succeed(result, lambda session: None)


def check_room(batch_size: int, size_hw: tuple[int, int], *, memory_bytes: int) -> None:
    """Raise ConfigError when a CPU cannot have the memory: it would be killed instead of told."""
    if batch_size * 3 * math.prod(size_hw) * BYTES_OF_FLOAT * TIMES_THE_INPUT > memory_bytes:
        raise _too_large(batch_size, size_hw, f"{memory_bytes / GIB:.1f} GiB of memory")


def _too_large(batch_size: int, size_hw: tuple[int, int], memory: str) -> ConfigError:
    height, width = size_hw
    problem = f"{batch_size} pictures of {height} x {width} do not fit into {memory}"
    return ConfigError([Fault("/batch_size", problem)])


class ProfilingProgress:
    """Shows how many runs of how many are done, and how long the others will take at the same pace."""

    def __init__(self, attempt: Attempt, num_runs: int) -> None:
        self._attempt, self._num_runs, self._pace, self._done = attempt, num_runs, Pace(), 0

    def ran(self) -> None:
        """Hear that another run is done."""
        self._done = min(self._done + 1, self._num_runs)
        self._attempt.control.pulse()
        self._attempt.report.progress(
            {
                "step": self._done,
                "steps": self._num_runs,
                "fraction": ALL_SEEN * self._done / self._num_runs,
            },
            eta_s=self._pace.eta_s(self._done, self._num_runs - self._done),
        )


def _measured(attempt: Attempt, network: Network, images: Tensor) -> dict[str, Any]:
    runs = int(attempt.job.config["runs"])
    progress = ProfilingProgress(attempt, (len(network.parts()) + 1) * (runs + WARM_UP_RUNS))
    rows = profile_parts(network, images, runs, ran=progress.ran)
    for line in table_lines(rows):
        attempt.report.line(line)
    own = deepcopy(network).half() if images.dtype is torch.float16 else network
    memory = peak_memory(lambda: own(images).sum().backward(), images.device)
    return {"parts": [_row(each) for each in rows], "memory": asdict(memory)}


def _images(config: Any, device: torch.device) -> Tensor:
    """Return pictures [B, 3, H, W] of noise: what is in them makes no difference."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(config["batch_size"], 3, *config["input_size"], generator=random).mul_(255)
    return images.to(device, torch.float16 if config["half"] else torch.float32)


def _found(network: Network, wanted: str | None) -> list[dict[str, Any]] | None:
    if wanted is None:
        return None
    return [
        {"index": each.index, "name": each.name, "class": type(each.module).__name__}
        for each in find_modules(network, module_class(network, wanted))
    ]


def _counted(info: ModelInfo, zeros: float, *, verbose: bool) -> dict[str, Any]:
    return {
        "layers": info.layers,
        "parameters": info.parameters,
        "gradients": info.gradients,
        "sparsity": zeros,
        "gflops": info.gflops,
        "gflops_extrapolated": info.gflops_extrapolated,
        "tensors": [asdict(each) for each in info.tensors] if verbose else None,
    }


def _row(row: OpRow) -> dict[str, Any]:
    """Return a part as JSON, which has no word for what is no number."""
    values = {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(row).items()
    }
    return {"part": values.pop("name"), **values}
