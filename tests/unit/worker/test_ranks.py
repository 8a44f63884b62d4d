"""What lies between a job process and its ranks: the line, the order, and what is made of how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from app.database.tables import JobEvent
from detection.error_record import record_of
from detection.errors import CheckpointError, ConfigError, DetectionError, DeviceMemoryError, RankError
from detection.families.yolox import YoloxConfig
from detection.input_convention import NANODET_STRETCH
from detection.training.job import TrainingJob
from detection.training.progress import Paces
from detection.training.recipes import resolve
from detection.training.reporting import Progress
from detection.training.state import StopReason, StopRequest, TrainingState
from tests.integration.test_worker_faults import is_gone
from tests.services import wait_until
from tests.small_job import Series
from tests.tiny_dataset import add_tiny_dataset
from tests.unit.worker.conftest import OpenAttempt
from worker.attempt import Attempt
from worker.context import WorkerContext
from worker.control import StoppedError
from worker.exit_codes import ExitCode, RanksEndedError
from worker.jobs import train as train_job
from worker.pictures import open_dataset
from worker.ranks import launch
from worker.ranks.launch import train_on_ranks
from worker.ranks.line import Call, Crashed, Died, Failed, JobEnd, Message, RankEnd, line_pair
from worker.ranks.order import TrainingEnd, read_end, read_order
from worker.ranks.reporting import CallingReporter, respond
from worker.ranks.room import check_room
from worker.ranks.torchrun import first_to_die, torchrun_arguments

END = TrainingEnd(
    reason=StopReason.COMPLETED,
    state=TrainingState(epoch=2, step=4, best_metrics={"ap": 0.5}),
    paces=Paces(trained_s=0.25),
)


class Heard(Series):
    """Remembers progress too."""

    def __init__(self) -> None:
        super().__init__()
        self.progress: list[Progress] = []

    def on_progress(self, progress: Progress) -> None:
        self.progress.append(progress)


def test_what_the_first_rank_tells_arrives_and_it_hears_the_answers() -> None:
    script = """
import sys
from detection.training.reporting import Progress
from worker.ranks.line import RankEnd
from worker.ranks.reporting import CallingReporter
from worker.standard_input import line_from_parent
reporter = CallingReporter(RankEnd(line_from_parent()))
reporter.on_stage("training")
reporter.on_start(3)
reporter.on_metrics(4, 1, {"loss": float("nan")})
reporter.on_checkpoint(4)
reporter.on_log("x" * 1_000_000)
reporter.on_progress(
    Progress(epoch=1, epochs=2, step=4, steps=8, fraction=0.5, eta_s=None, images_per_s=1.5)
)
sys.exit([None, "cancel"].index(reporter.request()))
"""
    ours, theirs = line_pair()
    heard = Heard()
    with ours, subprocess.Popen([sys.executable, "-c", script], stdin=theirs.fileno()) as rank:
        theirs.close()
        line = JobEnd(ours)
        while (message := line.receive()) is not None:
            assert isinstance(message, Call)
            line.answer(respond(message, heard, lambda: StopRequest.CANCEL))
    assert rank.returncode == 1, "it has heard of the cancellation"
    assert (heard.stages, heard.starts, heard.checkpoints) == (["training"], [3], [4])
    assert str(heard.rows[4]["loss"]) == "nan"
    assert set(heard.lines[0]) == {"x"}
    assert heard.progress[0].images_per_s == 1.5
    assert heard.progress[0].eta_s is None


def test_a_rank_without_a_job_process_does_not_wait() -> None:
    ours, theirs = line_pair()
    ours.close()
    with theirs, pytest.raises(OSError, match=r"pipe|gone"):
        CallingReporter(RankEnd(theirs)).request()


def test_nobody_left_to_hear_an_answer_is_no_error() -> None:
    ours, theirs = line_pair()
    theirs.close()
    with ours:
        JobEnd(ours).answer(None)
        assert JobEnd(ours).receive() is None


@pytest.mark.parametrize(
    ("codes", "first"),
    [
        ({0: 1, 1: -9}, (1, -9)),
        ({0: -15, 1: -9, 2: 1}, (1, -9)),
        ({0: -15, 1: 1}, (1, 1)),
        ({0: 1, 1: 1}, (0, 1)),
        ({0: -15}, (0, -15)),
    ],
)
def test_the_rank_that_the_others_followed_is_found(codes: dict[int, int], first: tuple[int, int]) -> None:
    assert first_to_die(codes) == first


def test_torchrun_restarts_nobody_and_listens_nowhere() -> None:
    arguments = torchrun_arguments(Path("ranks.json"), 3)
    options = dict(zip(arguments[:-5:2], arguments[1:-5:2], strict=True))
    assert (options["--nproc-per-node"], options["--max-restarts"]) == ("3", "0")
    assert (options["--rdzv-conf"], options["--local-addr"]) == ("store_type=file", "127.0.0.1")
    start = ["worker.ranks.start", str(os.getpid()), "worker.ranks.rank", "ranks.json"]
    assert arguments[-5:] == ["--module", *start]


@pytest.fixture
def attempt(context: WorkerContext, open_attempt: OpenAttempt) -> Attempt:
    config = YoloxConfig(epochs=2, batch_size=4, input_size=64, device="cpu", processes=2)
    resolved = asdict(resolve(config, num_images=4))
    return open_attempt(config=resolved, dataset_id=add_tiny_dataset(context))


@pytest.fixture
def training(attempt: Attempt) -> TrainingJob:
    return replace(train_job._training(attempt, open_dataset(attempt), None), convention=NANODET_STRETCH)


class Torchrun:
    """Stands in for torchrun: each start plays the next list of messages, or writes a result."""

    def __init__(self, *starts: Sequence[Message] | TrainingEnd) -> None:
        self.starts, self.orders = list(starts), list[Path]()

    @contextmanager
    def __call__(self, order: Path, num_ranks: int) -> Iterator[JobEnd]:
        assert num_ranks == 2
        self.orders.append(order)
        played = self.starts.pop(0)
        if isinstance(played, TrainingEnd):
            played.write(read_order(order).result)
            played = [Call("on_checkpoint", [4]), Call("request", [])]
        ours, theirs = line_pair()
        with ours, theirs:
            for message in played:
                RankEnd(theirs)._send(message)
            theirs.shutdown(1)
            yield JobEnd(ours)


Outcome = tuple[Any, list[str]]


def outcome(
    attempt: Attempt, training: TrainingJob, torchrun: Torchrun, monkeypatch: pytest.MonkeyPatch
) -> Outcome:
    monkeypatch.setattr(launch, "_torchrun", torchrun)
    heard = Heard()
    try:
        return train_on_ranks(attempt, training, open_dataset(attempt), heard), heard.lines
    except (DetectionError, RanksEndedError) as error:
        return error, heard.lines


def test_a_result_comes_back_with_a_meter_that_goes_on(
    attempt: Attempt, training: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchrun = Torchrun(END)
    result, _ = outcome(attempt, training, torchrun, monkeypatch)
    assert (result.reason, result.state) == (END.reason, END.state)
    result.saw(2)
    order = read_order(torchrun.orders[0])
    assert read_end(order.result) == END
    again = order.training(attempt.storage)
    for name in ("config", "dataset", "folder", "initial_weights", "convention", "identity"):
        assert getattr(again, name) == getattr(training, name), name
    assert again.read(again.train_images[0])[:2] == b"\xff\xd8", "pictures are found"


SMALLER = Failed(1, record_of(DeviceMemoryError(4, 1)))


def test_ranks_without_memory_begin_again_until_they_have_saved_something(
    attempt: Attempt, training: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchrun = Torchrun([SMALLER, Died(1, 1)], [SMALLER, Died(1, 1)], END)
    result, lines = outcome(attempt, training, torchrun, monkeypatch)
    assert result.reason is StopReason.COMPLETED
    assert [line.endswith("all ranks begin again with parts of half the size") for line in lines] == [
        True
    ] * 2
    assert len({read_order(order).meeting for order in torchrun.orders}) == 3, "nobody meets twice"

    late = Torchrun([Call("on_checkpoint", [4]), SMALLER, Died(1, 1)])
    assert isinstance(outcome(attempt, training, late, monkeypatch)[0], DeviceMemoryError)
    never = Torchrun(*[[SMALLER]] * 4)
    assert isinstance(outcome(attempt, training, never, monkeypatch)[0], DeviceMemoryError)
    one = Torchrun([Failed(0, record_of(DeviceMemoryError(2, 2)))])
    assert isinstance(outcome(attempt, training, one, monkeypatch)[0], DeviceMemoryError)


@pytest.mark.parametrize(
    ("told", "expected", "line"),
    [
        ([Failed(1, record_of(CheckpointError("damaged"))), Died(1, 1)], CheckpointError, ""),
        (
            [Crashed(0, "RuntimeError"), Failed(1, record_of(CheckpointError("damaged")))],
            CheckpointError,
            "",
        ),
        (
            [Failed(0, record_of(RankError(1, "KeyError"))), Crashed(1, "KeyError in run"), Died(0, 1)],
            ExitCode.CRASHED,
            "rank 1: KeyError in run",
        ),
        ([Failed(0, record_of(RankError(1, "x")))], ExitCode.CRASHED, "rank 1 of the training failed: x"),
        (
            [Crashed(0, "RuntimeError: connection reset"), Died(1, -signal.SIGKILL)],
            ExitCode.RANK_KILLED,
            "rank 1 of the training died of SIGKILL",
        ),
        ([Died(1, -signal.SIGSEGV)], ExitCode.CRASHED, "rank 1 of the training died of SIGSEGV"),
        ([Died(0, 3)], ExitCode.CRASHED, "rank 0 of the training ended with code 3"),
        ([], ExitCode.CRASHED, "the ranks did not start"),
    ],
)
def test_what_a_rank_says_itself_comes_before_what_others_saw(
    attempt: Attempt,
    training: TrainingJob,
    monkeypatch: pytest.MonkeyPatch,
    told: list[Message],
    expected: object,
    line: str,
) -> None:
    error, lines = outcome(attempt, training, Torchrun(told), monkeypatch)
    assert (error.code if isinstance(error, RanksEndedError) else type(error)) == expected
    assert lines == ([line] if line else [])


def test_a_killed_torchrun_is_said_to_be_killed(
    attempt: Attempt, training: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = real(*arguments, **options)
        process.kill()
        started.append(process)
        return process

    monkeypatch.setattr(launch.subprocess, "Popen", popen)
    heard = Heard()
    with pytest.raises(RanksEndedError) as ended:
        train_on_ranks(attempt, training, open_dataset(attempt), heard)
    assert ended.value.code == ExitCode.RANK_KILLED
    assert heard.lines == ["torchrun, which the ranks of the training belong to, was killed"]
    assert started[0].returncode == -signal.SIGKILL


def test_an_order_to_stop_is_obeyed_while_the_ranks_start(
    attempt: Attempt, training: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[psutil.Process] = []
    attempt.control._obeys = True
    attempt.control._order_at_least(StopRequest.CANCEL)
    real = subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = real(*arguments, **options)
        started.append(psutil.Process(process.pid))
        return process

    monkeypatch.setattr(launch.subprocess, "Popen", popen)
    with pytest.raises(StoppedError):
        train_on_ranks(attempt, training, open_dataset(attempt), Heard())
    assert not started[0].is_running()


def test_a_process_that_loads_much_dies_with_its_parent_before_it_has(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time; print('loading', flush=True); time.sleep(60)")
    parent = (
        "import os, subprocess, sys; from worker.ranks.start import starting\n"
        "child = subprocess.Popen([sys.executable, '-m', *starting('slow', os.getpid())],"
        " start_new_session=True)\nprint(child.pid, flush=True); child.wait()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])}
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env=environment) as running:
        assert running.stdout is not None
        child = psutil.Process(int(running.stdout.readline()))
        assert running.stdout.readline() == b"loading\n"
        running.kill()
    wait_until(lambda: is_gone(child), timeout_s=5)


def test_a_cpu_has_room_for_a_process_per_core_and_gigabyte() -> None:
    check_room(2, cores=2, memory_bytes=2 * 1024**3)
    with pytest.raises(ConfigError, match=r"64 .* with 2 cores and 24\.0 GiB of memory: .* 2 at most"):
        check_room(64, cores=2, memory_bytes=24 * 1024**3)
    with pytest.raises(ConfigError, match="so 3 at most fit"):
        check_room(4, cores=8, memory_bytes=int(3.9 * 1024**3))


def test_what_cannot_be_trained_is_said_before_anything_starts(
    attempt: Attempt, training: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = replace(training, dataset=replace(training.dataset, images=()))
    error, _ = outcome(attempt, empty, Torchrun(), monkeypatch)
    assert isinstance(error, ConfigError)


def test_an_order_to_stop_that_cannot_wait_ends_the_ranks(
    attempt: Attempt, training: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LostError(DetectionError):
        pass

    attempt.control.lose(LostError())
    error, _ = outcome(attempt, training, Torchrun([Call("request", [])]), monkeypatch)
    assert isinstance(error, LostError)


def test_the_line_says_why_in_the_jobs_own_log(
    attempt: Attempt, training: TrainingJob, context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_torchrun", Torchrun([Died(1, -signal.SIGKILL)]))
    with pytest.raises(RanksEndedError):
        train_job.run(attempt)
    with context.sessions() as session:
        lines = [event["line"] for event in session.scalars(select(JobEvent.data)) if "line" in event]
    assert lines == ["rank 1 of the training died of SIGKILL"]
