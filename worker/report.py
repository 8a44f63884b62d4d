"""What a job process tells about itself: gathered as it comes, written about once a second by a thread.

The job never waits for the database; when it is away, what was said is kept and written when it is back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from app.jobs import protocol
from app.jobs.protocol import LostLeaseError, SeriesRow
from app.logs import get_logger
from worker.control import Control
from worker.lease import DatabaseAwayError, Lease

WRITE_EVERY_S = 1.0

log = get_logger(__name__)


@dataclass(slots=True)
class Said:
    """What was said since the last write."""

    stage: str | None = None
    progress: dict[str, Any] | None = None
    eta_s: float | None = None
    metrics: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    device: str | None = None
    rows: list[SeriesRow] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    checkpoint_step: int | None = None


class JobReport:
    """Writes what a job says into its row, its series and its log."""

    def __init__(self, lease: Lease, control: Control, *, timing: Mapping[str, float]) -> None:
        """Report as the lease's attempt; `timing` is what earlier attempts have spent, by stage."""
        self._lease, self._control = lease, control
        self._said = Said()
        self._newest_metrics: dict[str, Any] = {}
        self._clock = StageClock(timing)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_now_and_then, name="report", daemon=True)
        self._thread.start()

    def stage(self, name: str) -> None:
        """Enter a stage: `preparing`, `training`, `publishing`, …"""
        with self._lock:
            self._clock.enter(name)
            self._said.stage = name

    def progress(self, progress: Mapping[str, Any], *, eta_s: float | None = None) -> None:
        with self._lock:
            self._said.progress, self._said.eta_s = dict(progress), eta_s

    def row(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Add a row to the series, and show its values as the newest."""
        with self._lock:
            self._newest_metrics.update(values)
            self._said.metrics = dict(self._newest_metrics)
            self._said.rows.append((step, epoch, dict(values)))

    def device(self, device: str) -> None:
        """Show where this attempt runs: `cpu`, or the accelerator's number."""
        with self._lock:
            self._said.device = device

    def config(self, config: Mapping[str, Any]) -> None:
        """Show, to this attempt's successors too, what the job really does."""
        with self._lock:
            self._said.config = dict(config)

    def checkpoint(self, step: int) -> None:
        """Work up to `step` is safe."""
        with self._lock:
            self._said.checkpoint_step = step

    def line(self, text: str) -> None:
        """Add a line to the job's log."""
        log.info(text)
        with self._lock:
            self._said.lines.append(text)

    def flush(self, *, time_too: bool = False) -> None:
        """Write all that was said so far; with `time_too` the time spent, even if nothing was said.

        Raises:
            LostLeaseError: somebody else owns the job.
            DatabaseAwayError: the database was away for longer than the lease.
        """
        with self._writing:
            with self._lock:
                said, self._said = self._said, Said()
                timing = self._clock.seconds()
            if time_too or said != Said():
                self._write(said, timing)

    def close(self) -> None:
        """Write nothing more."""
        self._closing.set()
        self._thread.join()

    def _write_now_and_then(self) -> None:
        try:
            while not self._closing.wait(WRITE_EVERY_S):
                self.flush()
        except (LostLeaseError, DatabaseAwayError) as error:
            self._control.lose(error)
        finally:
            if not self._closing.is_set():  # a job that nobody hears of must not go on
                self._control.lose(RuntimeError("the report of the job has ended before the job"))

    def _write(self, said: Said, timing: Mapping[str, float]) -> None:
        """Write in two transactions, each tried again by itself, so that no line is stored twice."""
        job_id, fence = self._lease.job_id, self._lease.fence

        def report(session: Session) -> None:
            protocol.report(
                session,
                job_id,
                fence,
                stage=said.stage,
                progress=said.progress,
                metrics=said.metrics,
                timing=timing,
                eta_s=said.eta_s,
                config=said.config,
                device=said.device,
                series=said.rows,
                log_lines=said.lines,
            )

        self._lease.write(report)
        step = said.checkpoint_step
        if step is not None:
            self._lease.write(lambda session: protocol.note_checkpoint(session, job_id, fence, step))


class StageClock:
    """Seconds spent in each stage, over all attempts."""

    def __init__(self, earlier: Mapping[str, float]) -> None:
        self._seconds = dict(earlier)
        self._stage, self._entered_at = "preparing", time.monotonic()

    def enter(self, stage: str) -> None:
        self._seconds = self.seconds()
        self._stage, self._entered_at = stage, time.monotonic()

    def seconds(self) -> dict[str, float]:
        """Return `{"training_s": …}` up to now."""
        name = f"{self._stage}_s"
        spent = self._seconds.get(name, 0.0) + time.monotonic() - self._entered_at
        return {**self._seconds, name: round(spent, 3)}
