"""Run a training on several ranks from its job process: start them, answer them, and see to their end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from detection.error_record import error_of
from detection.errors import DeviceMemoryError, RankError
from detection.training.job import TrainingJob
from detection.training.progress import Ended, ProgressMeter
from detection.training.reporting import Reporter
from detection.training.run import TrainingResult
from detection.training.trainer import OOM_HALVINGS
from worker.attempt import Attempt
from worker.exit_codes import ExitCode, RanksEndedError
from worker.memory import memory_limit_bytes
from worker.pictures import StoredDataset
from worker.ranks.line import PACKET_BYTES, Call, Crashed, Died, Failed, JobEnd, Message, line_pair
from worker.ranks.order import TrainingEnd, TrainingOrder, read_end
from worker.ranks.reporting import respond
from worker.ranks.room import check_room
from worker.ranks.start import starting
from worker.threads import num_cores, rank_environment

LOOK_S = 0.1
"""How often orders are looked for while the ranks start."""
ENDING_S = 5.0
"""For ranks that were killed to be gone."""


def train_on_ranks(
    attempt: Attempt, training: TrainingJob, dataset: StoredDataset, reporter: Reporter
) -> TrainingResult:
    """Train as `detection.training.run.train` does, on as many ranks as the configuration says.

    When a rank runs out of memory all are started again with smaller parts, unless the attempt has saved
    something since: then that is left to the next attempt.

    Raises:
        DetectionError: the training cannot be done like this; or what a rank has raised.
        RanksEndedError: a rank was killed, or failed with an error that nobody foresaw.
    """
    training.check(num_ranks=training.num_ranks)
    if training.devices[0].type == "cpu":
        check_room(training.num_ranks, cores=num_cores(), memory_bytes=memory_limit_bytes())
    for launch in range(1 + OOM_HALVINGS):
        order, ranks = _order(attempt, training, dataset, launch), _Launch(attempt, reporter)
        try:
            end = ranks.train(order, training.num_ranks)
        except DeviceMemoryError as error:
            if ranks.saved or launch == OOM_HALVINGS or error.micro_batches >= error.batch_size:
                raise
            reporter.on_log(f"{error}; all ranks begin again with parts of half the size")
        else:
            return _result(end, training, reporter)
    raise AssertionError("the last launch returns or raises")


class _Launch:
    """One start of all ranks."""

    def __init__(self, attempt: Attempt, reporter: Reporter) -> None:
        self._attempt, self._reporter = attempt, reporter
        self._told: list[Failed | Crashed | Died] = []
        self._ask = False
        self.saved = False
        """Whether there was a checkpoint meanwhile."""

    def train(self, order: TrainingOrder, num_ranks: int) -> TrainingEnd:
        path = self._attempt.scratch / f"{order.meeting.stem}.json"
        order.write(path)
        with _torchrun(path, num_ranks) as line:
            while (message := self._next(line)) is not None:
                self._hear(message, line)
                if isinstance(message, Died):
                    break
        if not self._told and order.result.exists():
            return read_end(order.result)
        raise self._why(line.starter_code)

    def _next(self, line: JobEnd) -> Message | None:
        """Return the next message. Ranks that do not ask yet what is wanted have nothing to save."""
        while not self._ask and not line.has_news(LOOK_S):
            self._attempt.control.obey_now()
        return line.receive()

    def _hear(self, message: Message, line: JobEnd) -> None:
        if not isinstance(message, Call):
            self._told.append(message)
            return
        self._ask = self._ask or message.method == "request"
        self.saved = self.saved or message.method == "on_checkpoint"
        line.answer(msgspec.to_builtins(respond(message, self._reporter, self._attempt.control.request)))

    def _why(self, starter_code: int | None) -> Exception:
        """Return what ended the training: what a rank itself says before what others have seen of it."""
        failures = [error_of(each.error) for each in self._told if isinstance(each, Failed)]
        own = [each for each in failures if not isinstance(each, RankError)]
        if own:
            return own[0]
        crashes = [f"rank {each.rank}: {each.line}" for each in self._told if isinstance(each, Crashed)]
        deaths = [each for each in self._told if isinstance(each, Died)]
        killed = [_obituary(each) for each in deaths if each.code == -signal.SIGKILL]
        if starter_code == -signal.SIGKILL:
            killed.append("torchrun, which the ranks of the training belong to, was killed")
        others = crashes or [str(each) for each in failures] or [_obituary(each) for each in deaths]
        self._reporter.on_log((killed or others or ["the ranks did not start"])[0])
        self._attempt.report.flush()
        return RanksEndedError(ExitCode.RANK_KILLED if killed else ExitCode.CRASHED)


def _obituary(death: Died) -> str:
    if death.code >= 0:
        return f"rank {death.rank} of the training ended with code {death.code}"
    return f"rank {death.rank} of the training died of {signal.Signals(-death.code).name}"


def _result(end: TrainingEnd, training: TrainingJob, reporter: Reporter) -> TrainingResult:
    """Return the result as publishing needs it here, with a meter that goes on where the ranks' stood."""
    meter = ProgressMeter(
        reporter,
        training.plan,
        num_val_images=len(training.val_images),
        evaluate_every_epochs=training.evaluate_every_epochs,
    )
    meter.go_on(Ended(end.state, end.reason), end.paces)
    return TrainingResult(reason=end.reason, state=end.state, saw=meter.saw, paces=end.paces)


def _order(attempt: Attempt, training: TrainingJob, dataset: StoredDataset, launch: int) -> TrainingOrder:
    pictures, scratch = dataset.pictures, attempt.scratch.resolve()
    return TrainingOrder(
        job_id=attempt.job.id,
        fence=attempt.job.fence,
        config=msgspec.to_builtins(training.config),
        dataset_prefix=pictures.prefix,
        pictures=pictures.cache.resolve(),
        folder=training.folder.resolve(),
        meeting=scratch / f"ranks-{launch}.meeting",
        result=scratch / f"ranks-{launch}.result",
        initial_weights=None if training.initial_weights is None else training.initial_weights.resolve(),
        convention=training.convention,
        until_step=training.until_step,
    )


@contextmanager
def _torchrun(order: Path, num_ranks: int) -> Iterator[JobEnd]:
    """Start the ranks; none of them is left when the block ends."""
    ours, theirs = line_pair()
    with ours, theirs:
        start = [sys.executable, "-m", *starting("worker.ranks.torchrun", os.getpid())]
        process = subprocess.Popen(
            [*start, str(order), str(num_ranks)],
            stdin=theirs.fileno(),
            env={**os.environ, **rank_environment(num_ranks)},
        )
        theirs.close()
        line = JobEnd(ours)
        try:
            yield line
        finally:
            line.starter_code = _own_end(process) if line.ended else None
            process.kill()  # its ranks die with it
            process.wait()
            _await_silence(ours)


def _own_end(process: subprocess.Popen[bytes]) -> int | None:
    """Return how a process ends that has let go of its line already; None when it does not."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDING_S)
    return process.returncode


def _await_silence(line: socket.socket) -> None:
    """Wait until no rank holds the other end of the line any more."""
    line.settimeout(ENDING_S)
    with suppress(OSError):
        while line.recv(PACKET_BYTES):
            pass
