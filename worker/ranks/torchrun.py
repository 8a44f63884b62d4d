"""`worker.ranks.start PARENT worker.ranks.torchrun ORDER N`: torchrun with N ranks here, none is restarted.

It meets nobody over the network: ranks find each other through files, and talk over the loopback interface.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from worker.ranks.leaving import leave
from worker.ranks.line import RankEnd
from worker.ranks.start import starting


def main(arguments: list[str] | None = None) -> NoReturn:
    options = _parse(arguments)
    order: Path = options.order
    try:
        run(parse_args(torchrun_arguments(order, options.ranks)))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, code = first_to_die({rank: each.exitcode for rank, each in error.failures.items()})
        RankEnd(_line()).died(rank, code)
        leave(1)
    leave(0)


def torchrun_arguments(order: Path, num_ranks: int) -> list[str]:
    """Return the command line of torchrun; each rank must be the child of this very process."""
    options = {
        "--nnodes": "1",
        "--nproc-per-node": str(num_ranks),
        "--max-restarts": "0",
        "--rdzv-backend": "c10d",
        "--rdzv-conf": "store_type=file",
        "--rdzv-endpoint": str(order.with_suffix(".rendezvous")),
        "--rdzv-id": order.stem,
        "--local-addr": "127.0.0.1",
    }
    rank = ["--module", *starting("worker.ranks.rank", os.getpid()), str(order)]
    return [*(part for option in options.items() for part in option), *rank]


def first_to_die(codes: dict[int, int]) -> tuple[int, int]:
    """Return the rank that the others followed, and how it ended.

    When one is killed the others lose their connection to it and fail as well, within the same moment, or
    torchrun ends them by SIGTERM. So a rank that died of another signal comes first.
    """

    def lateness(rank_and_code: tuple[int, int]) -> tuple[bool, bool, int]:
        rank, code = rank_and_code
        return code == -signal.SIGTERM, code >= 0, rank

    return min(codes.items(), key=lateness)


def _line() -> socket.socket:
    return socket.socket(fileno=os.dup(sys.stdin.fileno()))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.ranks.torchrun", description="Start ranks.")
    parser.add_argument("order", type=Path, help="a file with the training's order")
    parser.add_argument("ranks", type=int, help="how many")
    return parser.parse_args(arguments)
