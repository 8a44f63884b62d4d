"""A training on two ranks over gloo, as a worker runs it: cancelled, resumed, robbed of a rank, published."""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import asdict
from subprocess import Popen

import psutil
from sqlalchemy import select

from app.database.tables import JobEvent, JobTransition, Model
from app.jobs import protocol
from app.jobs.states import JobKind, JobStatus, Queue
from detection.families.yolox import YoloxAugmentationConfig, YoloxConfig
from detection.training.config import EvaluationConfig, ScheduleConfig
from detection.training.recipes import resolve
from tests.integration.test_worker_faults import check_invariants, is_gone, progressed, steps_of
from tests.services import Home, wait_until
from tests.tiny_dataset import NUM_TRAIN, add_tiny_dataset

Process = Popen[bytes]
ENDED_S = 10.0
"""So soon after a rank was killed nothing of its attempt may be left."""


def training_on_ranks(home: Home) -> str:
    """Queue a training of two ranks that saves every other step and ends when it is told to."""
    config = YoloxConfig(
        epochs=2000,
        batch_size=2,
        input_size=64,
        device="cpu",
        processes=2,
        sync_bn=True,
        schedule=ScheduleConfig(no_aug_epochs=0),
        augmentation=YoloxAugmentationConfig(mosaic=0.0, multi_scale=False),
        evaluation=EvaluationConfig(every_epochs=2000),
    )
    resolved = asdict(resolve(config, num_images=NUM_TRAIN))
    return home.queue_job(JobKind.TRAIN, name="ranks", dataset_id=add_tiny_dataset(home), config=resolved)


def family(job_process: psutil.Process) -> list[psutil.Process]:
    """Return a job process and all that it has started: torchrun and the ranks."""
    return [job_process, *job_process.children(recursive=True)]


def ranks_of(processes: list[psutil.Process]) -> dict[int, psutil.Process]:
    """Return those processes that are ranks, by rank."""
    ranks = [each for each in processes if "worker.ranks.rank" in each.cmdline()]
    return {int(rank.environ()["RANK"]): rank for rank in ranks}


def assert_all_gone(processes: list[psutil.Process]) -> None:
    wait_until(lambda: all(is_gone(process) for process in processes), timeout_s=ENDED_S)


def test_a_training_on_two_ranks_outlives_what_may_happen_to_it(home: Home) -> None:
    worker = home.start_worker(Queue.GPU)
    job_id = training_on_ranks(home)
    fence = cancelled_in_the_middle(home, worker, job_id)
    fence = robbed_of_a_rank(home, worker, job_id, beyond_fence=fence)

    progressed(home, job_id, beyond_fence=fence)
    with home.sessions() as session:
        assert protocol.request_finish(session, job_id)
    ended = home.wait_for(job_id, timeout_s=180)
    assert ended.status == JobStatus.SUCCEEDED, home.logs()
    check_invariants(home, job_id)
    with home.sessions() as session:
        model = session.scalars(select(Model).where(Model.job_id == job_id)).one()
        log = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.kind == "log")).all()
    assert "2 processes on CPU, synchronised batch norm" in [each.data["line"] for each in log]
    assert model.provenance["ranks"] == ["cpu", "cpu"]
    assert model.provenance["config"]["processes"] == 2
    assert model.metrics is not None


def cancelled_in_the_middle(home: Home, worker: Process, job_id: str) -> int:
    """Cancel the training while it runs, then resume it; return the fence of the cancelled attempt."""
    job = progressed(home, job_id)
    processes = family(home.child_of(worker))
    assert ranks_of(processes).keys() == {0, 1}
    assert job.device == "cpu"
    with home.sessions() as session:
        protocol.request_cancel(session, job_id)
    assert home.wait_for(job_id, timeout_s=30).status == JobStatus.CANCELLED
    assert_all_gone(processes)
    done = steps_of(home, job_id)
    check_invariants(home, job_id)
    with home.sessions() as session:
        assert protocol.resume(session, job_id)
    progressed(home, job_id, beyond_fence=job.fence, steps=1)
    assert steps_of(home, job_id)[: len(done)] == done
    assert "going on after step" in home.logs()
    return job.fence


def robbed_of_a_rank(home: Home, worker: Process, job_id: str, *, beyond_fence: int) -> int:
    """Kill rank 1 while it trains; return the fence with which the attempt went back to the queue."""
    job = progressed(home, job_id, beyond_fence=beyond_fence)
    processes = family(home.child_of(worker))
    ranks_of(processes)[1].send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    wait_until(lambda: home.job(job_id).fence > job.fence, timeout_s=ENDED_S)
    assert_all_gone(processes)
    took_s = time.monotonic() - killed_at
    logging.getLogger(__name__).info("the attempt ended %.2f s after its rank was killed", took_s)
    assert took_s < ENDED_S
    assert "rank 1 of the training died of SIGKILL" in home.logs()
    with home.sessions() as session:
        said = session.scalars(select(JobTransition.reason).where(JobTransition.job_id == job_id)).all()
    assert any("a process of the training was killed" in reason for reason in said)
    return job.fence + 1  # the next attempt may have begun meanwhile, with a higher one
