"""Run a training: go on from the newest checkpoint, survive a diverging loss, end in an orderly way.

`train` may be killed at any moment and called again with the same job: it goes on where it was. On several
ranks each of them calls it; the first one logs, evaluates and saves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from detection.devices import describe_devices
from detection.durable import write_durably
from detection.errors import CheckpointError, ConfigError, DeviceMemoryError, TrainingDivergedError
from detection.evaluation.metrics import Metrics
from detection.models.network import Network
from detection.run_description import describe_run
from detection.training.callbacks import (
    Evaluate,
    LimitTime,
    ObeyRequests,
    SaveCheckpoints,
    StopAtStep,
    StopEarly,
    StopRequests,
)
from detection.training.checkpoints import CheckpointStore, Payload
from detection.training.distributed import Ranks, rank_zero_first
from detection.training.feed import CACHE_BYTES, TrainingFeed
from detection.training.freezing import FreezeParts
from detection.training.job import TrainingJob
from detection.training.progress import Paces, ProgressMeter, Seen
from detection.training.report import Report
from detection.training.reporting import Reporter, SilentReporter
from detection.training.session import open_session
from detection.training.snapshot import capture
from detection.training.state import StopReason, TrainingState
from detection.training.tasks import training_of
from detection.training.trainer import Callback, Trainer
from detection.training.zeros import KeepZeros

CHECKPOINTS = "checkpoints"
MEMORY_NOTE = "memory.json"
"""In how many parts the next attempt computes a batch, after one ran out of memory."""
MOST_RECOVERIES = 3
RECOVERY_LR_FACTOR = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """How a training ended."""

    reason: StopReason
    state: TrainingState
    saw: Seen
    """To be told of the measurement that publishing the model takes, which is a part of the progress."""
    paces: Paces = field(default_factory=Paces)
    """For whoever publishes in another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """What the next try must know about the ones that diverged."""

    lr_factor: float = 1.0
    recoveries: int = 0


def train(
    job: TrainingJob,
    *,
    reporter: Reporter | None = None,
    requests: StopRequests = lambda: None,
    ranks: Ranks | None = None,
) -> TrainingResult:
    """Train until the end, or until `requests` says otherwise; go on from the newest checkpoint.

    Args:
        reporter: is told about progress, losses and what happened; ranks other than the first only log.
        requests: returns what somebody wants of the training; asked after every step, on the first rank.
        ranks: the processes that train together; None is this one alone, on the job's first device.

    Raises:
        ConfigError, DeviceError: this cannot be trained, or not here.
        CheckpointError: the checkpoints are of another training, all damaged, or cannot be written.
        TrainingDivergedError: the loss did not stay finite, even with a lower learning rate.
        DeviceMemoryError: out of memory in the middle of it; the next attempt computes smaller parts.
        RankError: another rank failed with an error that nobody foresaw.
    """
    ranks = ranks or Ranks(device=job.devices[0])
    job.check(num_ranks=ranks.world)
    if faults := training_of(job).faults(job):
        raise ConfigError(faults)
    return _Run(job, reporter or SilentReporter(), requests, ranks).run()


def open_checkpoints(job: TrainingJob, *, log: Callable[[str], None]) -> CheckpointStore:
    """Return the checkpoints of a training."""
    return CheckpointStore(job.folder / CHECKPOINTS, job.identity, log=log)


class _Run:
    """One attempt at a job, as one rank goes through it."""

    def __init__(self, job: TrainingJob, reporter: Reporter, requests: StopRequests, ranks: Ranks) -> None:
        self._job, self._reporter, self._requests, self._ranks = job, reporter, requests, ranks
        reporter.on_stage("preparing")
        for line in _first_lines(job, ranks):
            reporter.on_log(line)
        self._training = training_of(job)
        samples = self._training.open_samples(job, cache_bytes=CACHE_BYTES // ranks.world)
        self._feed = TrainingFeed(job, samples, ranks)
        self._meter = ProgressMeter(
            reporter,
            job.plan,
            num_val_images=len(job.val_images),
            evaluate_every_epochs=job.evaluate_every_epochs,
        )

    def run(self) -> TrainingResult:
        setback = Setback()
        while True:
            ended = self._attempt(setback)
            if isinstance(ended, TrainingResult):
                return ended
            setback = ended

    def _attempt(self, setback: Setback) -> TrainingResult | Setback:
        """Go on from the newest checkpoint to the end, or to a loss that is not finite."""
        trainer = self._trainer()
        state = trainer.state
        # What was learnt from a divergence outlives the checkpoint that the training goes back to.
        state.lr_factor = min(state.lr_factor, setback.lr_factor)
        state.recoveries = max(state.recoveries, setback.recoveries)
        try:
            reason = trainer.fit()
            return TrainingResult(reason=reason, state=state, saw=self._meter.saw, paces=self._meter.paces)
        except TrainingDivergedError as error:
            if state.recoveries == MOST_RECOVERIES:
                raise
            lr_factor = state.lr_factor * RECOVERY_LR_FACTOR
            self._reporter.on_log(
                f"{error}; going back to the last checkpoint with {lr_factor:g} × the learning rate"
            )
            return Setback(lr_factor=lr_factor, recoveries=state.recoveries + 1)
        except DeviceMemoryError as error:
            self._note_memory(error.micro_batches * 2)
            raise

    def _trainer(self) -> Trainer:
        job, log = self._job, self._reporter.on_log
        payload = self._newest_checkpoint()
        optimisation, state = open_session(job, payload, self._ranks, log=log)
        if payload is not None:
            log(f"going on after step {state.step}, in epoch {state.epoch + 1}")
        state.micro_batches = max(state.micro_batches, self._noted_micro_batches())
        return Trainer(optimisation, job.plan, self._feed, state, self._callbacks(), log=log)

    def _newest_checkpoint(self) -> Payload | None:
        """Return what the training goes on from, the same on every rank.

        Opened anew each time: what the first rank has saved, the others have not heard of.
        """
        with rank_zero_first(self._ranks, log=self._reporter.on_log):
            self._store = open_checkpoints(self._job, log=self._reporter.on_log)
        payload = self._store.load_latest()
        steps = self._ranks.gather(0 if payload is None else int(payload["state"]["step"]))
        if len(set(steps)) > 1:
            raise CheckpointError(f"the ranks read checkpoints of different steps: {steps}")
        return payload

    def _callbacks(self) -> list[Callback]:
        """Return what happens around the loop; other ranks than the first only change the network."""
        config = self._job.config
        changing: list[Callback] = [KeepZeros()] if self._job.keep_zeros else []
        if config.freeze.parts:
            changing.append(FreezeParts(config.freeze.parts, config.optimizer))
        return self._callbacks_of_first(changing) if self._ranks.is_first else changing

    def _callbacks_of_first(self, changing: Sequence[Callback]) -> list[Callback]:
        config, every = self._job.config, self._job.evaluate_every_epochs
        # The order counts: a row is reported before anything can stop the training, the evaluation decides
        # what is best before the checkpoint is written, and a reporter hears of the checkpoint at last.
        callbacks: list[Callback] = [*changing, Report(self._reporter), self._meter]
        if every is not None:
            callbacks.append(
                Evaluate(self._measure, every_epochs=every, requests=self._requests, reporter=self._reporter)
            )
        callbacks += self._early_ends()
        return [
            *callbacks,
            LimitTime(config.time_limit_s),
            ObeyRequests(self._requests),
            SaveCheckpoints(self._save, every_epochs=config.checkpoint_every),
        ]

    def _early_ends(self) -> list[Callback]:
        """Return what may end the training before its last epoch because of the weights that it has."""
        stopping, until = self._job.config.early_stopping, self._job.until_step
        if until is not None:
            return [StopAtStep(until)]
        if stopping.patience is None:
            return []
        return [StopEarly(patience=stopping.patience, min_delta=stopping.min_delta)]

    def _measure(self, network: Network, interrupted: Callable[[], bool]) -> Metrics | None:
        measured = self._training.measure(self._job, network, interrupted=interrupted, saw=self._meter.saw)
        return None if measured is None else measured.metrics

    def _save(self, trainer: Trainer) -> None:
        state = trainer.state
        payload = capture(trainer.optimisation, state, self._job.identity)
        self._store.save(payload, step=state.step, best=state.best_step == state.step)

    def _note_memory(self, micro_batches: int) -> None:
        note: dict[str, Any] = {"micro_batches": micro_batches}
        write_durably(self._job.folder / MEMORY_NOTE, msgspec.json.encode(note))

    def _noted_micro_batches(self) -> int:
        path: Path = self._job.folder / MEMORY_NOTE
        return int(msgspec.json.decode(path.read_bytes())["micro_batches"]) if path.exists() else 1


def _first_lines(job: TrainingJob, ranks: Ranks) -> Iterator[str]:
    yield describe_run(job.devices)
    if ranks.world > 1:
        where = describe_devices(tuple(dict.fromkeys(job.device_of(rank) for rank in range(ranks.world))))
        synchronised = ", synchronised batch norm" if job.config.sync_bn else ""
        yield f"{ranks.world} processes on {where}{synchronised}"
    yield from job.notes
