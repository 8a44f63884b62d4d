"""How many threads a job computes with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker import threads


@pytest.mark.parametrize(
    ("content", "expected"), [("max 100000", None), ("150000 100000", 1), ("50000 100000", 1), ("", None)]
)
def test_a_container_has_the_cores_of_its_quota(tmp_path: Path, content: str, expected: int | None) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(content)
    assert threads.num_cores(quota) == (expected or len(os.sched_getaffinity(0)))


def test_cores_are_shared_and_a_user_may_say_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "num_cores", lambda: 8)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    shared = threads.thread_environment(3)
    assert (shared["OMP_NUM_THREADS"], shared["MKL_NUM_THREADS"]) == ("2", "3")


def test_ranks_share_the_threads_of_their_job_and_stay_on_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    shared = threads.rank_environment(3)
    assert {shared[name] for name in threads.VARIABLES} == {"2"}
    assert (shared["GLOO_SOCKET_IFNAME"], shared["NCCL_SOCKET_IFNAME"]) == ("lo", "lo")
    assert shared["OMP_WAIT_POLICY"] == "PASSIVE"
    assert threads.rank_environment(9)["OMP_NUM_THREADS"] == "1"
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "num_cores", lambda: 8)
    assert threads.rank_environment(2)["OMP_NUM_THREADS"] == "4"


def test_threads_sleep_while_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert threads.thread_environment(1)["OMP_WAIT_POLICY"] == "PASSIVE"
