"""A training that is stopped or killed anywhere ends in the very same weights, and its series has no hole."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import torch

from detection.training.run import CHECKPOINTS, train
from detection.training.state import StopReason, StopRequest
from tests.small_job import Series, final_digest, small_job

ROOT = Path(__file__).resolve().parents[2]
STEPS = 9


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Series]:
    """The hash of all that a training that nobody disturbs ends with, and its series."""
    job, series = small_job(tmp_path_factory.mktemp("undisturbed")), Series()
    assert train(job, reporter=series).reason is StopReason.COMPLETED
    return final_digest(job), series


class DrainAt(Series):
    """Asks for room once a step is told."""

    def __init__(self, step: int, series: Series) -> None:
        super().__init__()
        self._step, self.rows = step, series.rows

    def request(self) -> StopRequest | None:
        return StopRequest.DRAIN if self._step in self.rows else None


@pytest.mark.parametrize("step", [1, 3, 5, 8, 9])
def test_a_drained_training_loses_no_step_and_ends_the_same(
    tmp_path: Path, undisturbed: tuple[str, Series], step: int
) -> None:
    expected, whole = undisturbed
    job, first = small_job(tmp_path), DrainAt(step, Series())
    stopped = train(job, reporter=first, requests=first.request)
    assert stopped.reason is StopReason.DRAINED
    assert stopped.state.step == step
    second = Series()
    second.rows = first.rows
    assert train(small_job(tmp_path), reporter=second).reason is StopReason.COMPLETED
    assert second.starts == [step]
    assert final_digest(job) == expected
    assert second.rows == whole.rows


def test_every_step_of_the_series_is_there_once(undisturbed: tuple[str, Series]) -> None:
    _, series = undisturbed
    assert list(series.rows) == list(range(1, STEPS + 1))
    assert [step for step, values in series.rows.items() if "ap" in values] == [3, 6, 9]


def test_a_training_that_has_ended_ends_again_at_once(
    tmp_path: Path, undisturbed: tuple[str, Series]
) -> None:
    job = small_job(tmp_path)
    train(job)
    series = Series()
    assert train(job, reporter=series).reason is StopReason.COMPLETED
    assert (series.starts, series.rows) == ([STEPS], {})
    assert final_digest(job) == undisturbed[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_training_ends_the_same(tmp_path: Path, undisturbed: tuple[str, Series], seed: int) -> None:
    random = Random(seed)
    told = kill_after(tmp_path, random.randrange(1, STEPS))
    assert told
    job, series = small_job(tmp_path), Series()
    assert train(job, reporter=series).reason is StopReason.COMPLETED
    # No more than an epoch is lost: it goes on from the newest checkpoint that the killed one told of.
    saved = [int(line.split()[1]) for line in told if line.startswith("checkpoint")]
    assert series.starts[0] >= max(saved, default=0)
    assert final_digest(job) == undisturbed[0]
    assert not list((tmp_path / CHECKPOINTS).glob("*.tmp-*"))


def kill_after(folder: Path, step: int) -> list[str]:
    """Train in another process, kill it once a step is told, and return what it has told by then."""
    told: list[str] = []
    command = [sys.executable, "-m", "tests.small_job", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line.strip())
            if line.strip() == f"step {step}":
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    return told
