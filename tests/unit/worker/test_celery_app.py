"""Celery's settings, and what a worker's process does not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from app.task_queue import RUN_JOB
from worker import context as context_module
from worker.celery_app import celery_app, configure
from worker.context import WorkerContext, get_context, set_context
from worker.tasks import run_job


@pytest.fixture(autouse=True)
def no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_module, "_current", [])


def test_the_broker_can_neither_repeat_nor_stall_a_job(tmp_path: Path) -> None:
    conf = configure(Settings(home=tmp_path)).conf
    transport = conf.broker_transport_options
    assert not conf.task_acks_late
    assert not conf.task_reject_on_worker_lost
    assert conf.worker_disable_prefetch
    assert not conf.worker_cancel_long_running_tasks_on_connection_loss
    assert conf.task_ignore_result
    assert conf.accept_content == ["json"]
    assert conf.broker_connection_max_retries is None
    assert transport["visibility_timeout"] == 3600
    assert transport["socket_timeout"] > 1, "Celery's BRPOP waits for a second"
    assert transport["socket_connect_timeout"] == 5


def test_there_is_one_task_of_ours() -> None:
    assert run_job.name == RUN_JOB
    assert [name for name in celery_app.tasks if not name.startswith("celery.")] == [RUN_JOB]


def test_a_task_looks_for_jobs(context: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[WorkerContext] = []
    monkeypatch.setattr("worker.tasks.take_jobs", looked.append)
    set_context(context)
    run_job("the job")
    assert looked == [context]


def test_only_a_worker_has_a_context() -> None:
    with pytest.raises(RuntimeError, match="no worker"):
        get_context()


@pytest.mark.parametrize("module", ["worker.__main__", "worker.tasks", "worker.process", "app.task_queue"])
def test_neither_torch_nor_opencv_nor_fastapi_is_imported(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'torch', 'cv2', 'fastapi', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
