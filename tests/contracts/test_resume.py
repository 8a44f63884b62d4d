"""A training that is stopped or killed anywhere ends in the very same weights, and its series has no hole."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import pytest
import torch

from detection.families import DEFAULT_FAMILY, FAMILIES
from detection.training.run import CHECKPOINTS, train
from detection.training.state import StopReason, StopRequest
from tests.small_job import Series, final_digest, small_job

ROOT = Path(__file__).resolve().parents[2]
STEPS = 9


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


Undisturbed = Callable[[str], tuple[str, Series]]
OF_ALL = [(family, 5) for family in FAMILIES if FAMILIES[family] is not DEFAULT_FAMILY]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The hash of all that a family's training ends with when nobody disturbs it, and its series."""

    @cache
    def outcome(family: str) -> tuple[str, Series]:
        job, series = small_job(tmp_path_factory.mktemp("undisturbed"), family=family), Series()
        assert train(job, reporter=series).reason is StopReason.COMPLETED
        return final_digest(job), series

    return outcome


class DrainAt(Series):
    """Asks for room once a step is told."""

    def __init__(self, step: int, series: Series) -> None:
        super().__init__()
        self._step, self.rows = step, series.rows

    def request(self) -> StopRequest | None:
        return StopRequest.DRAIN if self._step in self.rows else None


@pytest.mark.parametrize(
    ("family", "step"), [*((DEFAULT_FAMILY.name, step) for step in (1, 3, 5, 8, 9)), *OF_ALL]
)
def test_a_drained_training_loses_no_step_and_ends_the_same(
    tmp_path: Path, undisturbed: Undisturbed, family: str, step: int
) -> None:
    expected, whole = undisturbed(family)
    job, first = small_job(tmp_path, family=family), DrainAt(step, Series())
    stopped = train(job, reporter=first, requests=first.request)
    assert stopped.reason is StopReason.DRAINED
    assert stopped.state.step == step
    second = Series()
    second.rows = first.rows
    assert train(small_job(tmp_path, family=family), reporter=second).reason is StopReason.COMPLETED
    assert second.starts == [step]
    assert final_digest(job) == expected
    assert second.rows == whole.rows


@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_of_the_series_is_there_once(undisturbed: Undisturbed, family: str) -> None:
    _, series = undisturbed(family)
    assert list(series.rows) == list(range(1, STEPS + 1))
    score = "accuracy" if family == "classifier" else "ap"
    assert [step for step, values in series.rows.items() if score in values] == [3, 6, 9]


def test_a_training_that_has_ended_ends_again_at_once(tmp_path: Path, undisturbed: Undisturbed) -> None:
    job = small_job(tmp_path)
    train(job)
    series = Series()
    assert train(job, reporter=series).reason is StopReason.COMPLETED
    assert (series.starts, series.rows) == ([STEPS], {})
    assert final_digest(job) == undisturbed(DEFAULT_FAMILY.name)[0]


@pytest.mark.parametrize(("family", "seed"), [(DEFAULT_FAMILY.name, 0), (DEFAULT_FAMILY.name, 1), *OF_ALL])
def test_a_killed_training_ends_the_same(
    tmp_path: Path, undisturbed: Undisturbed, family: str, seed: int
) -> None:
    random = Random(seed)
    told = kill_after(tmp_path, family, random.randrange(1, STEPS))
    assert told
    job, series = small_job(tmp_path, family=family), Series()
    assert train(job, reporter=series).reason is StopReason.COMPLETED
    # No more than an epoch is lost: it goes on from the newest checkpoint that the killed one told of.
    saved = [int(line.split()[1]) for line in told if line.startswith("checkpoint")]
    assert series.starts[0] >= max(saved, default=0)
    assert final_digest(job) == undisturbed(family)[0]
    assert not list((tmp_path / CHECKPOINTS).glob("*.tmp-*"))


def kill_after(folder: Path, family: str, step: int) -> list[str]:
    """Train in another process, kill it once a step is told, and return what it has told by then."""
    told: list[str] = []
    command = [sys.executable, "-m", "tests.small_job", str(folder), family]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line.strip())
            if line.strip() == f"step {step}":
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    return told


def test_the_series_names_every_loss_while_it_is_there(undisturbed: Undisturbed) -> None:
    """The auxiliary branch teaches the rest for an epoch, then only itself, then it is gone."""
    _, series = undisturbed("nanodet-plus")
    own = {"loss", "qfl", "giou", "dfl"}
    auxiliary = {"aux_qfl", "aux_giou", "aux_dfl"}
    for step, values in series.rows.items():
        assert own <= values.keys()
        assert (auxiliary <= values.keys()) is (step <= 6)
        assert values.get("aux_teaches") == (1.0 if step <= 3 else 0.0 if step <= 6 else None)
        terms = (own - {"loss"}) | (auxiliary if step <= 6 else set())
        assert values["loss"] == pytest.approx(sum(values[name] for name in terms), rel=1e-5)
