"""Trainings whose processes, workers, broker and database are killed, paused and cut off."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import redis
from sqlalchemy import func, select

from app.database.tables import Dataset, Job, JobMetric, JobTransition, Model, OutboxRow, Worker
from app.jobs import protocol
from app.jobs.states import TRANSITIONS, JobKind, JobStatus, Queue
from detection.families.yolox import YoloxAugmentationConfig, YoloxConfig
from detection.training.config import EvaluationConfig, ScheduleConfig
from detection.training.recipes import resolve
from tests.integration.test_worker_jobs import imported
from tests.services import Home, job_processes, running_postgres, wait_until
from tests.serving import short_folder
from tests.tiny_dataset import NUM_TRAIN, add_tiny_dataset, tiny_archive

ENDLESS = 2000
"""Epochs of a training that ends only when somebody wants it to; each of its steps is a row of the series."""


def endless_training(home: Home) -> str:
    """Queue a training that saves every other step and never measures until it is told to finish."""
    config = YoloxConfig(
        epochs=ENDLESS,
        batch_size=2,
        input_size=64,
        device="cpu",
        schedule=ScheduleConfig(no_aug_epochs=0),
        augmentation=YoloxAugmentationConfig(mosaic=0.0, multi_scale=False),
        evaluation=EvaluationConfig(every_epochs=ENDLESS),
    )
    resolved = asdict(resolve(config, num_images=NUM_TRAIN))
    return home.queue_job(JobKind.TRAIN, name="endless", dataset_id=add_tiny_dataset(home), config=resolved)


def progressed(home: Home, job_id: str, *, beyond_fence: int = 0, steps: int = 2) -> Job:
    """Wait until an attempt with a higher fence has saved some steps more; return the job as it is then."""
    wait_until(lambda: home.job(job_id).fence > beyond_fence, timeout_s=120)
    before = home.job(job_id).checkpoint_step
    wait_until(lambda: home.job(job_id).checkpoint_step >= before + steps, timeout_s=180)
    return home.job(job_id)


def steps_of(home: Home, job_id: str) -> list[int]:
    with home.sessions() as session:
        query = select(JobMetric.step).where(JobMetric.job_id == job_id).order_by(JobMetric.step)
        return list(session.scalars(query))


def check_invariants(home: Home, job_id: str) -> None:
    """Legal path, a series without a hole or a double, an empty outbox, no process and no scratch left."""
    with home.sessions() as session:
        query = select(JobTransition.status).where(JobTransition.job_id == job_id)
        path = [JobStatus(status) for status in session.scalars(query.order_by(JobTransition.id))]
        assert session.scalar(select(func.count()).select_from(OutboxRow)) == 0
        models = session.scalar(select(func.count()).select_from(Model).where(Model.job_id == job_id))
        kind = session.get_one(Job, job_id).kind
    assert all(later in TRANSITIONS[earlier] for earlier, later in pairwise(path))
    assert models == (kind == JobKind.TRAIN and path[-1] is JobStatus.SUCCEEDED)
    steps = steps_of(home, job_id)
    assert steps == list(range(1, len(steps) + 1))
    scratch = home.settings.scratch / "jobs"
    wait_until(lambda: not list(scratch.iterdir()), timeout_s=20)


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_training_outlives_the_broker_and_a_deploy(home: Home) -> None:
    """What `kill -9` of trainer and worker does, tests/e2e/test_serve.py tries."""
    worker = home.start_worker(Queue.GPU)
    job_id = endless_training(home)
    for _ in range(50):
        assert home.bell.ring(job_id, Queue.GPU)
    job = progressed(home, job_id)
    assert (job.fence, len(job_processes(worker.pid))) == (1, 1), "fifty bells start one training"

    home.kill_broker()
    job = progressed(home, job_id)
    home.start_broker()
    broker_of(home).flushall()
    assert progressed(home, job_id).fence == job.fence, "the broker is no business of a training"

    charged, no_progress = job.charged_attempts, job.no_progress
    worker.terminate()
    assert worker.wait(home.settings.stop_grace_s + 10) == 0
    job = home.job(job_id)
    assert (job.status, job.charged_attempts, job.no_progress) == (JobStatus.QUEUED, charged, no_progress)
    assert job.checkpoint_step == steps_of(home, job_id)[-1], "a deploy costs no step"
    broker_of(home).flushall()
    home.start_worker(Queue.GPU)
    progressed(home, job_id, beyond_fence=job.fence)

    with home.sessions() as session:
        assert protocol.request_finish(session, job_id)
    job = home.wait_for(job_id, timeout_s=120)
    assert job.status == JobStatus.SUCCEEDED, home.logs()
    check_invariants(home, job_id)


def pause_between_transactions(home: Home, processes: list[psutil.Process]) -> None:
    """Stop processes where they hold no lock: inside a transaction they would stop all writers of SQLite."""
    for _ in range(50):
        for process in processes:
            process.suspend()
        wait_until(lambda: all(map(is_stopped, processes)), timeout_s=20)
        if home.can_write():
            return
        for process in processes:
            process.resume()
    raise AssertionError("the processes are always inside a transaction")


def is_stopped(process: psutil.Process) -> bool:
    """Return whether no thread runs any more: one in a system call may still come out of it with a lock."""
    states = [status.read_text() for status in Path(f"/proc/{process.pid}/task").glob("*/status")]
    return all("\nState:\tT" in state for state in states)


def test_a_paused_attempt_writes_nothing_and_a_cancelled_one_can_be_resumed(home: Home) -> None:
    first = home.start_worker(Queue.GPU)
    job_id = endless_training(home)
    job = progressed(home, job_id)
    paused = home.child_of(first)
    pause_between_transactions(home, [paused, psutil.Process(first.pid)])

    second = home.start_worker(Queue.GPU)
    job = progressed(home, job_id, beyond_fence=job.fence)
    for process in (psutil.Process(first.pid), paused):
        process.resume()
    wait_until(lambda: is_gone(paused), timeout_s=20)
    assert [path.name for path in (home.settings.checkpoints / job_id).iterdir()] == [str(job.fence)]
    assert progressed(home, job_id).fence == job.fence, "the newer attempt was not disturbed"
    assert len(job_processes(first.pid)) + len(job_processes(second.pid)) == 1

    with home.sessions() as session:
        assert protocol.request_cancel(session, job_id) is JobStatus.CANCELLING
    assert home.wait_for(job_id, timeout_s=15).status == JobStatus.CANCELLED
    done = steps_of(home, job_id)
    check_invariants(home, job_id)

    with home.sessions() as session:
        assert protocol.resume(session, job_id)
    job = progressed(home, job_id, beyond_fence=job.fence)
    assert job.charged_attempts == 0
    assert steps_of(home, job_id)[: len(done)] == done
    assert f"going on after step {done[-1]}" in home.logs(), "nothing was trained twice"
    with home.sessions() as session:
        protocol.request_cancel(session, job_id)
    assert home.wait_for(job_id, timeout_s=15).status == JobStatus.CANCELLED
    check_invariants(home, job_id)


def test_an_idle_worker_stops_at_once_although_its_broker_is_silent(home: Home) -> None:
    worker = home.start_worker(Queue.GPU)
    bell = broker_of(home)
    wait_until(lambda: any(client["cmd"] == "brpop" for client in bell.client_list()), timeout_s=30)
    os.kill(home.broker_process.pid, signal.SIGSTOP)
    worker.terminate()
    assert worker.wait(15) == 0
    with home.sessions() as session:
        assert session.scalars(select(Worker)).all() == []


def test_an_import_that_gets_nowhere_holds_up_no_other(home: Home) -> None:
    worker = home.start_worker(Queue.CPU)
    _, stuck_id = imported(home, tiny_archive())
    stuck = home.child_of(worker)
    stuck.suspend()
    for _ in range(2):
        _, job_id = imported(home, tiny_archive())
        assert home.wait_for(job_id).status == JobStatus.SUCCEEDED
    assert home.job(stuck_id).status == JobStatus.RUNNING
    stuck.resume()
    assert home.wait_for(stuck_id).status == JobStatus.SUCCEEDED


@pytest.fixture
def home_without_broker() -> Iterator[Home]:
    with short_folder() as folder:
        home = Home(folder)
        yield home
        home.close()


def test_jobs_are_done_without_a_broker_too(home_without_broker: Home) -> None:
    home = home_without_broker
    worker = home.start_worker(Queue.CPU)
    dataset_id, job_id = imported(home, tiny_archive())
    assert home.wait_for(job_id).status == JobStatus.SUCCEEDED
    home.start_broker()
    _, job_id = imported(home, tiny_archive())
    assert home.wait_for(job_id).status == JobStatus.SUCCEEDED
    with home.sessions() as session:
        assert session.get_one(Dataset, dataset_id).status == "ready"
    worker.terminate()
    assert worker.wait(20) == 0


def test_a_process_that_dies_before_its_commit_leaves_no_half_dataset(home: Home) -> None:
    home.start_worker(Queue.CPU, HARRIER_FAULT_POINT="import_uncommitted:1")
    dataset_id, job_id = imported(home, tiny_archive())
    job = home.wait_for(job_id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2), home.logs()
    with home.sessions() as session:
        dataset = session.get_one(Dataset, dataset_id)
    assert (dataset.status, dataset.storage_prefix) == ("ready", f"datasets/{dataset_id}/{job.fence}")
    wait_until(lambda: not list(home.storage.keys(f"datasets/{dataset_id}/1/")), timeout_s=10)
    check_invariants(home, job_id)


def test_a_training_whose_database_is_away_for_longer_than_its_lease_goes_on_afterwards() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running_postgres())
        home = Home(stack.enter_context(short_folder()), database_url=server.address)
        stack.callback(home.close)
        home.start_broker()
        worker = home.start_worker(Queue.GPU)
        job_id = endless_training(home)
        job = progressed(home, job_id)
        child = home.child_of(worker)

        server.stop()
        wait_until(lambda: is_gone(child), timeout_s=home.settings.lease_s + 40)
        server.start()
        home.engine.dispose()
        job = progressed(home, job_id, beyond_fence=job.fence)
        with home.sessions() as session:
            protocol.request_cancel(session, job_id)
        assert home.wait_for(job_id, timeout_s=15).status == JobStatus.CANCELLED
        check_invariants(home, job_id)


def broker_of(home: Home) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(home.settings.broker_socket))
