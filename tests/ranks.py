"""Real ranks for tests: processes that meet by gloo, as those of a training do, and execute one function."""

from __future__ import annotations

import io
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch

from detection.devices import CPU
from detection.training.distributed import Ranks, joined_ranks

PRELOADED = [
    "pytest",
    "torch._dynamo",  # which DistributedDataParallel loads, for a second
    "detection.data.importing",
    "detection.training.run",
    "tests.small_job",
]
TIMEOUT_S = 120


class RankTestError(Exception):
    """What a rank raised, by rank."""


@cache
def _context() -> ForkServerContext:
    """Return a way to start processes that have torch already: it is loaded once, not by each of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def on_ranks(function: Callable[..., Any], *arguments: Any, world: int = 2) -> list[Any]:
    """Return what `function(ranks, *arguments)` returns on each rank: tensors and plain data.

    The function must be one of a module.

    Raises:
        RankTestError: a rank raised, or did not come to an end.
    """
    with tempfile.TemporaryDirectory() as folder:
        lines, processes = [], []
        for rank in range(world):
            ours, theirs = _context().Pipe(duplex=False)
            process = _context().Process(
                target=_run, args=(theirs, rank, world, Path(folder) / "meeting", function, arguments)
            )
            process.start()
            theirs.close()
            lines.append(ours)
            processes.append(process)
        try:
            return _answers(lines)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _answers(lines: list[Connection]) -> list[Any]:
    answers: dict[int, Any] = {}
    while len(answers) < len(lines):
        waiting = [line for rank, line in enumerate(lines) if rank not in answers]
        ready = wait(waiting, TIMEOUT_S)
        if not ready:
            raise RankTestError(f"only ranks {sorted(answers)} have come to an end")
        for line in ready:
            assert isinstance(line, Connection)
            answers[lines.index(line)] = line.recv()
    failures = {rank: answer for rank, (done, answer) in answers.items() if not done}
    if failures:
        raise RankTestError("\n".join(f"rank {rank}: {text}" for rank, text in sorted(failures.items())))
    contents = [io.BytesIO(answers[rank][1]) for rank in range(len(lines))]
    return [torch.load(content, weights_only=True) for content in contents]


def _run(
    line: Connection, rank: int, world: int, meeting: Path, function: Callable[..., Any], arguments: Any
) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    try:
        with joined_ranks(rank, world, device=CPU, meeting=meeting) as ranks:
            answer = function(ranks, *arguments)
        content = io.BytesIO()
        torch.save(answer, content)  # a tensor sent as it is would be shared with a process that ends
        line.send((True, content.getvalue()))
    except Exception as error:  # noqa: BLE001 - told to the test, which raises it
        line.send((False, f"{type(error).__name__}: {error}"))


def alone() -> Ranks:
    """Return the ranks of a training in one process."""
    return Ranks(device=CPU)
