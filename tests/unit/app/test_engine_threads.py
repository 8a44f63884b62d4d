"""Work from which no thread comes back is told from work that only takes long."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from app.engine.pipeline import Pipeline
from app.engine.threads import COMPUTING, LOOK_S, WITH_MODELS, WITH_PICTURES, Patience, StuckWork, Threads
from app.settings import Settings
from app.storage import open_storage
from tests.serving import wait_for

MUCH_S, LITTLE_S = 2 * COMPUTING * LOOK_S, 0.5 * COMPUTING * LOOK_S
MOST_LOOKS = WITH_PICTURES.most_looks
IDLE_LOOKS = MOST_LOOKS // WITH_PICTURES.idle_counts

DEADLOCK = """
import asyncio, threading
from app.engine import threads

async def story():
    pool = threads.Threads(2, "pictures")
    lock = threading.Lock()
    lock.acquire()
    threads.LOOK_S = 0.01
    watching = asyncio.create_task(threads.end_when_stuck([pool]))
    assert await asyncio.wrap_future(pool.submit(lambda: "seen")) == "seen"
    await asyncio.wrap_future(pool.submit(lock.acquire))

asyncio.run(asyncio.wait_for(story(), 30))
"""

LOST_DEVICE = """
import torch
from app.engine.threads import Threads

def compute(code):
    error = torch.AcceleratorError("CUDA error: what it is called")
    error.error_code = code
    raise error

pool = Threads(1, "device")
assert isinstance(pool.submit(compute, 1).exception(), torch.AcceleratorError)
print("goes on", flush=True)
pool.submit(compute, 700).exception()
print("and on")
"""


class Watched:
    """A pool, the watch over it, and what the processor was told to have done."""

    def __init__(self, patience: Patience = WITH_PICTURES) -> None:
        self.pool = Threads(2, "test", patience=patience)
        self.computed_s = 0.0
        self.watch = StuckWork([self.pool], lambda: self.computed_s)
        self.go_on = threading.Event()

    def begin(self) -> None:
        begun = threading.Event()
        self.pool.submit(lambda: (begun.set(), self.go_on.wait(20)))
        assert begun.wait(20)

    def is_stuck_after(self, looks: int, *, computing_s: float) -> bool:
        """Look so often, and say whether the last look finds something."""
        found = None
        for _ in range(looks):
            assert found is None, "too early"
            self.computed_s += computing_s
            found = self.watch.look()
        return found == self.pool.name

    def end(self) -> None:
        self.go_on.set()
        self.pool.shutdown()


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.end()


def test_who_waits_without_computing_is_stuck_soon(watched: Watched) -> None:
    assert not watched.is_stuck_after(2 * MOST_LOOKS, computing_s=LITTLE_S), "nothing is under way"
    watched.begin()
    assert watched.is_stuck_after(IDLE_LOOKS, computing_s=LITTLE_S)


def test_who_computes_is_given_long(watched: Watched) -> None:
    watched.begin()
    assert watched.is_stuck_after(MOST_LOOKS, computing_s=MUCH_S)


@pytest.mark.parametrize("computing_s", [MUCH_S, LITTLE_S], ids=["computes", "waits"])
def test_who_loads_a_model_is_given_an_hour_whatever_it_does(computing_s: float) -> None:
    watched = Watched(WITH_MODELS)
    watched.begin()
    assert watched.is_stuck_after(round(3600 / LOOK_S), computing_s=computing_s)
    watched.end()


def test_one_piece_of_work_after_the_other_is_not_stuck(watched: Watched) -> None:
    for _ in range(3):
        watched.begin()
        assert not watched.is_stuck_after(IDLE_LOOKS - 1, computing_s=LITTLE_S)
        watched.go_on.set()
        watched.pool.submit(lambda: None).result(20)
        wait_for(lambda: not watched.pool.under_way, 20)
        watched.go_on.clear()


def test_a_pool_does_what_it_is_told_and_forgets_it(watched: Watched) -> None:
    assert watched.pool.submit(divmod, 7, 2).result(20) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        watched.pool.submit(divmod, 7, 0).result(20)
    watched.pool.shutdown()
    assert watched.pool.under_way == set()


def test_the_engine_watches_who_looks_at_pictures_and_who_loads_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # of other tests
    settings = Settings(home=tmp_path, device="cpu")
    pipeline = Pipeline(settings, open_storage(settings))
    patience = {pool.name: pool.patience for pool in pipeline.pools}
    assert patience.pop("loader") == WITH_MODELS
    assert len(patience) == 2
    assert set(patience.values()) == {WITH_PICTURES}


def test_a_deadlocked_process_ends_and_shows_where_it_hangs() -> None:
    ended = subprocess.run([sys.executable, "-c", DEADLOCK], capture_output=True, text=True, timeout=60)
    assert ended.returncode == os.EX_SOFTWARE, ended.stderr
    assert "a thread never came back" in ended.stderr + ended.stdout
    assert "pictures" in ended.stderr + ended.stdout
    assert "_take_through" in ended.stderr


def test_a_process_whose_accelerator_is_lost_ends_and_says_so() -> None:
    ended = subprocess.run([sys.executable, "-c", LOST_DEVICE], capture_output=True, text=True, timeout=60)
    assert ended.returncode == os.EX_SOFTWARE, ended.stderr
    assert "goes on" in ended.stdout
    assert "and on" not in ended.stdout
    assert "computes nothing more" in ended.stderr + ended.stdout
