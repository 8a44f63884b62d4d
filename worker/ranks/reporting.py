"""Reporters of ranks: the first one tells the job process everything, the others write to its log file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from app.logs import get_logger
from detection.training.reporting import Progress, Reporter, SilentReporter
from detection.training.state import StopRequest
from worker.ranks.line import LONGEST_TEXT, Call, RankEnd

log = get_logger(__name__)


class CallingReporter:
    """The first rank's: it is a `detection.training.reporting.Reporter`, and hears what is wanted."""

    def __init__(self, line: RankEnd) -> None:
        self._line = line

    def request(self) -> StopRequest | None:
        """Return what somebody wants of the training."""
        wanted = self._line.call("request")
        return None if wanted is None else StopRequest(wanted)

    def on_stage(self, stage: str) -> None:
        self._line.call("on_stage", stage)

    def on_start(self, step: int) -> None:
        self._line.call("on_start", step)

    def on_progress(self, progress: Progress) -> None:
        self._line.call("on_progress", progress)

    def on_metrics(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self._line.call("on_metrics", step, epoch, values)

    def on_checkpoint(self, step: int) -> None:
        self._line.call("on_checkpoint", step)

    def on_log(self, line: str) -> None:
        self._line.call("on_log", line[:LONGEST_TEXT])


class LoggingReporter(SilentReporter):
    """Another rank's: what it says is of interest only when something is wrong."""

    def on_log(self, line: str) -> None:
        log.info(line)


def respond(call: Call, reporter: Reporter, request: Callable[[], StopRequest | None]) -> object:
    """Do what the first rank asks of the job process; return the answer.

    Raises:
        Exception: whatever `request` raises: the training must stop at once.
    """
    told: dict[str, Callable[..., Any]] = {
        "request": request,
        "on_stage": reporter.on_stage,
        "on_start": reporter.on_start,
        "on_progress": lambda progress: reporter.on_progress(msgspec.convert(progress, Progress)),
        "on_metrics": reporter.on_metrics,
        "on_checkpoint": reporter.on_checkpoint,
        "on_log": reporter.on_log,
    }
    return told[call.method](*call.arguments)
