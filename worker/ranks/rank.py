"""`worker.ranks.start PARENT worker.ranks.rank ORDER`: one rank of a training, as torchrun starts it."""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
from pathlib import Path
from typing import NoReturn

import structlog

from app.logs import configure_logging
from app.settings import get_settings
from app.storage import open_storage
from detection.errors import DetectionError
from detection.training.distributed import Ranks, joined_ranks
from detection.training.job import TrainingJob
from detection.training.run import TrainingResult, train
from worker.failures import crash_line
from worker.ranks.leaving import leave
from worker.ranks.line import RankEnd
from worker.ranks.order import TrainingEnd, TrainingOrder, read_order
from worker.ranks.reporting import CallingReporter, LoggingReporter
from worker.standard_input import line_from_parent


def main(arguments: list[str] | None = None) -> NoReturn:
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # torchrun ends the others when one has died: at once
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    order, line = read_order(options.order), RankEnd(line_from_parent())
    settings = get_settings()
    configure_logging(settings)
    structlog.contextvars.bind_contextvars(job_id=order.job_id, fence=order.fence, rank=rank)
    try:
        training = order.training(open_storage(settings))
        device = training.device_of(rank)
        with joined_ranks(rank, world, device=device, meeting=order.meeting) as ranks:
            _train(training, order, ranks, line)
    except DetectionError as error:
        line.fail(rank, error)
        leave(1)
    except Exception as error:
        line.crash(rank, crash_line(error))
        raise
    leave(0)


def _train(training: TrainingJob, order: TrainingOrder, ranks: Ranks, line: RankEnd) -> None:
    if not ranks.is_first:
        train(training, reporter=LoggingReporter(), ranks=ranks)
        return
    reporter = CallingReporter(line)
    result: TrainingResult = train(training, reporter=reporter, requests=reporter.request, ranks=ranks)
    TrainingEnd.of(result).write(order.result)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m worker.ranks.rank", description="Train as one of several."
    )
    parser.add_argument("order", type=Path, help="a file with the training's order")
    return parser.parse_args(arguments)
