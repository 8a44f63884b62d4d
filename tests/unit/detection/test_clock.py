"""The clock that waits for the device; the device is pretended, and finishes its work when waited for."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch

from detection.clock import Stopwatch, synchronised_time
from detection.devices import CPU
from detection.training.plan import TrainingPlan
from detection.training.progress import ProgressMeter
from detection.training.report import Report
from detection.training.reporting import Progress, SilentReporter
from tests.tiny_training import DrawnBatches, tiny_config, tiny_trainer

ACCELERATOR = torch.device("cuda", 1)


class World:
    """A clock, and an accelerator that is behind with its work by `behind_s` until somebody waits for it."""

    def __init__(self) -> None:
        self.now, self.behind_s = 100.0, 0.0
        self.waited_for: list[torch.device] = []

    def clock(self) -> float:
        return self.now

    def wait(self, device: torch.device) -> None:
        self.waited_for.append(device)
        self.now += self.behind_s
        self.behind_s = 0.0

    def ask(self, *, takes_s: float) -> None:
        """Give the accelerator something to do; asking takes a millisecond."""
        self.now += 0.001
        self.behind_s += takes_s


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device: SimpleNamespace(synchronize=lambda: world.wait(device))
    )
    return world


def test_the_time_is_read_when_the_device_has_done_its_work(world: World) -> None:
    world.ask(takes_s=3.0)
    assert synchronised_time(ACCELERATOR, clock=world.clock) == pytest.approx(103.001)
    assert world.waited_for == [ACCELERATOR]


def test_a_cpu_is_never_waited_for_and_its_clock_never_goes_back(world: World) -> None:
    first, second = synchronised_time(), synchronised_time(CPU)
    assert first <= second
    assert world.waited_for == []


def test_a_lap_is_the_work_of_the_device_and_not_only_the_asking(world: World) -> None:
    watch = Stopwatch(ACCELERATOR, clock=world.clock)
    world.ask(takes_s=2.0)
    assert watch.lap_s() == pytest.approx(2.001)
    world.ask(takes_s=0.5)
    assert watch.lap_ms() == pytest.approx(501)


def test_work_from_before_the_first_lap_is_not_counted(world: World) -> None:
    world.ask(takes_s=9.0)
    watch = Stopwatch(ACCELERATOR, clock=world.clock)
    world.ask(takes_s=1.0)
    assert watch.lap_s() == pytest.approx(1.001)


def test_looking_at_a_running_lap_does_not_wait(world: World) -> None:
    watch = Stopwatch(ACCELERATOR, clock=world.clock)
    world.ask(takes_s=4.0)
    assert watch.passed_s() == pytest.approx(0.001)
    assert len(world.waited_for) == 1, "only as the lap began"


class Listener(SilentReporter):
    def __init__(self) -> None:
        self.speeds: list[float] = []
        self.rows: list[Mapping[str, float]] = []

    def on_progress(self, progress: Progress) -> None:
        if progress.images_per_s is not None:
            self.speeds.append(progress.images_per_s)

    def on_metrics(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self.rows.append(values)


def test_a_training_on_an_accelerator_is_timed_by_its_work_and_seldom_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four pictures a step, half a second of work each, which are asked for in no time."""
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 0)
    listener, lines = Listener(), list[str]()

    def ask(step: int, images: torch.Tensor) -> torch.Tensor:
        world.ask(takes_s=2.0)
        return images

    meter = ProgressMeter(
        listener,
        TrainingPlan(tiny_config(), num_images=16),
        num_val_images=0,
        evaluate_every_epochs=None,
        clock=world.clock,
    )
    callbacks = [Report(listener, clock=world.clock), meter]
    trainer = tiny_trainer(callbacks, source=DrawnBatches(ask), log=lines.append)
    trainer.optimisation.device = ACCELERATOR
    trainer.optimisation.autocast_dtype = None
    trainer.fit()
    assert listener.speeds[-1] == pytest.approx(2.0, rel=0.01)
    assert [row["images_per_s"] for row in listener.rows] == pytest.approx([2.0] * 12, rel=0.01)
    assert lines[-1] == "trained on 48 pictures in 24.0 s: 2.0 images/s"
    assert len(world.waited_for) < 4 * 12, "not after every step"
