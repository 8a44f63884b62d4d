"""Several processes that train one detector together: which of them this one is, and how they keep step.

Every rank executes the same collectives in the same order. What one of them decides or raises on its own is
therefore told to all before anybody goes on: no rank waits for one that has left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import msgspec
import torch
from torch import Tensor, distributed

from detection.error_record import ErrorRecord, error_of, record_of
from detection.errors import DetectionError, RankError

PATIENCE = timedelta(hours=24)
"""How long a rank waits for the others, who may be evaluating. One that dies is noticed at once, and one that
hangs by whoever watches the processes; this is for those whom nobody watches."""
FAILED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The processes of one training, seen from one of them. Alone, everything here costs nothing."""

    device: torch.device
    """Of this rank."""
    rank: int = 0
    world: int = 1
    """How many there are."""

    @property
    def is_first(self) -> bool:
        """True for the one that logs, evaluates and saves."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.world == 1

    def gather(self, number: int) -> list[int]:
        """Return the number of every rank, by rank; waits for all of them."""
        if self.is_alone:
            return [number]
        own = torch.tensor([number])
        everywhere = [torch.empty_like(own) for _ in range(self.world)]
        distributed.all_gather(everywhere, own)
        return [int(each) for each in everywhere]

    def wait(self) -> None:
        """Return when every rank has come here."""
        self.gather(0)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over ranks, on the device that `values` lie on; without gradient."""
        if self.is_alone:
            return values.detach()
        total = values.detach().clone()
        distributed.all_reduce(total)
        return total / self.world

    def together(self, act: Callable[[], int]) -> int:
        """Act on every rank; return what the act of the first one returned, a number of at least 0.

        Raises:
            DetectionError: what the act of some rank raised, on every rank.
            RankError: the act of another rank raised something else.
        """
        if self.is_alone:
            return act()
        try:
            answer = act()
        except Exception as error:
            self.gather(FAILED)
            self._tell_failure(error)
            raise
        answers = self.gather(answer)
        if FAILED in answers:
            raise error_of(self._hear_failure(answers.index(FAILED)))
        return answers[0]

    def _tell_failure(self, error: Exception) -> None:
        if not isinstance(error, DetectionError):
            error = RankError(self.rank, f"{type(error).__name__}: {error}")
        self._gather_bytes(msgspec.msgpack.encode(record_of(error)))

    def _hear_failure(self, rank: int) -> ErrorRecord:
        return msgspec.msgpack.decode(self._gather_bytes(b"")[rank], type=ErrorRecord)

    def _gather_bytes(self, content: bytes) -> list[bytes]:
        lengths = self.gather(len(content))
        own = torch.zeros(max(lengths), dtype=torch.uint8)
        own[: len(content)] = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8)[: len(content)]
        everywhere = [torch.empty_like(own) for _ in range(self.world)]
        distributed.all_gather(everywhere, own)
        return [bytes(each[:length].tolist()) for each, length in zip(everywhere, lengths, strict=True)]


@contextmanager
def joined_ranks(
    rank: int, world: int, *, device: torch.device, meeting: Path, patience: timedelta = PATIENCE
) -> Iterator[Ranks]:
    """Meet the other ranks of a training on this host; leave them at the end of the block.

    Tensors on the CPU travel by gloo and those on accelerators by NCCL.

    Args:
        rank: counted from 0.
        meeting: a file that is not there yet, the same for all ranks and for this one meeting. A file needs
            no port that strangers could connect to.
        patience: so long a rank waits for the others.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl",
        store=distributed.FileStore(str(meeting), world),  # type: ignore[attr-defined]
        rank=rank,
        world_size=world,
        timeout=patience,
    )
    try:
        yield Ranks(rank=rank, world=world, device=device)
    finally:
        distributed.destroy_process_group()


@contextmanager
def rank_zero_first(ranks: Ranks, *, log: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Let the first rank execute the block before the others do: for files that one makes and all read.

    The others are let in even when the block raises on the first rank. Alone, nobody waits.

    Differs from the reference: that leaves the others waiting when the first rank raises.
    """
    if ranks.is_alone:
        yield
        return
    if not ranks.is_first:
        log(f"rank {ranks.rank} waits until rank 0 has gone first")
        ranks.wait()
    try:
        yield
    finally:
        if ranks.is_first:
            ranks.wait()
