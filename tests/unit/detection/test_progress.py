"""How far a training says that it is and how long it will take, from its first step to its model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from detection.evaluation.coco import CocoMetrics, measure_detections
from detection.models.detector import Detector
from detection.training.callbacks import Evaluate
from detection.training.config import FreezeConfig, TrainingConfig
from detection.training.plan import TrainingPlan
from detection.training.progress import ProgressMeter
from detection.training.reporting import ALL_SEEN, Progress, SilentReporter
from detection.training.state import StopReason, TrainingState
from detection.training.trainer import Callback, StepResult, Trainer
from tests.tiny_training import DrawnBatches, tiny_config, tiny_trainer

NUM_VAL = 10
STEP_S, EVALUATION_S = 2.0, 5.0
PICTURE_S, MEASURED_S = STEP_S / 4, EVALUATION_S / NUM_VAL
TRAINED, EVALUATED, PUBLISHED = 3 * 16, 3 * NUM_VAL, NUM_VAL
ALL = (TRAINED + EVALUATED + PUBLISHED) / ALL_SEEN


class Diary(SilentReporter):
    """Keeps what was told of progress, in its order."""

    def __init__(self) -> None:
        self.told: list[Progress] = []

    def on_progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def at(self, step: int) -> Progress:
        """Return the first word after a step."""
        return next(each for each in self.told if each.step == step)


class World:
    """A training whose steps and evaluations take their time by a clock of their own."""

    def __init__(self, *, config: TrainingConfig | None = None, num_val: int = NUM_VAL) -> None:
        self.now = 0.0
        self.diary = Diary()
        self._config, self._num_val = config or tiny_config(), num_val
        self.meter = ProgressMeter(
            self.diary,
            TrainingPlan(self._config, num_images=16),
            num_val_images=num_val,
            evaluate_every_epochs=1 if num_val else None,
            clock=lambda: self.now,
        )

    def train(self, *callbacks: Callback, state: TrainingState | None = None) -> StopReason:
        around: list[Callback] = [self.meter]
        if self._num_val:
            around.append(
                Evaluate(self.measure, every_epochs=1, requests=lambda: None, reporter=SilentReporter())
            )
        trainer = tiny_trainer(
            [*around, *callbacks], config=self._config, source=DrawnBatches(self._batch), state=state
        )
        return trainer.fit()

    def measure(self, detector: Detector, interrupted: Callable[[], bool]) -> CocoMetrics:
        self.look_at_all()
        return replace(measure_detections([], [], ["cat"]), ap=0.1)

    def look_at_all(self) -> None:
        for seen in range(2, self._num_val + 1, 2):
            self.now += EVALUATION_S * 2 / self._num_val
            self.meter.saw(seen)

    def _batch(self, step: int, images: torch.Tensor) -> torch.Tensor:
        self.now += STEP_S
        return images


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        if step.step == self._step:
            trainer.stop(StopReason.FINISHED)


def test_nothing_is_known_before_the_first_step() -> None:
    world = World()
    world.train()
    first = world.diary.told[0]
    assert (first.epoch, first.epochs, first.step, first.steps) == (1, 3, 0, 12)
    assert (first.fraction, first.eta_s, first.images_per_s) == (0.0, None, None)
    assert first.as_json() == {"epoch": 1, "epochs": 3, "step": 0, "steps": 12, "fraction": 0.0}


def test_the_time_left_counts_what_is_trained_evaluated_and_published() -> None:
    world = World()
    world.train()
    untimed = world.diary.at(2)
    assert untimed.eta_s == pytest.approx((TRAINED - 8 + EVALUATED + PUBLISHED) * PICTURE_S)
    timed = world.diary.at(6)
    left_s = 6 * STEP_S + 2 * EVALUATION_S + EVALUATION_S
    assert timed.eta_s == pytest.approx(left_s)
    assert timed.images_per_s == pytest.approx(4 / STEP_S)


def test_the_fraction_is_that_of_the_pictures_and_never_the_whole() -> None:
    world = World()
    world.train()
    world.look_at_all()
    told = world.diary.told
    assert world.diary.at(6).fraction == pytest.approx((6 * 4 + NUM_VAL) / ALL)
    fractions = [each.fraction for each in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(ALL_SEEN)
    assert told[-1].eta_s is None, "how long the writing takes is not known"


def test_the_end_is_not_near_while_an_evaluation_or_the_publication_is_still_to_come() -> None:
    world = World()
    world.train()
    last_step = [each for each in world.diary.told if each.step == 12]
    assert last_step[0].eta_s == pytest.approx(2 * EVALUATION_S)
    assert last_step[-1].eta_s == pytest.approx(EVALUATION_S), "the publication measures once more"
    world.look_at_all()
    etas = [each.eta_s for each in world.diary.told if each.step == 12]
    assert etas[:-1] == sorted(etas[:-1], reverse=True)
    assert 0.0 not in etas


def test_without_a_split_to_measure_on_only_the_steps_are_counted() -> None:
    world = World(num_val=0)
    world.train()
    assert world.diary.at(6).eta_s == pytest.approx(6 * STEP_S)
    last = world.diary.told[-1]
    assert (last.fraction, last.eta_s) == (pytest.approx(ALL_SEEN), None)


def test_a_training_that_is_finished_early_has_only_its_publication_left() -> None:
    world = World()
    assert world.train(StopAt(5)) is StopReason.FINISHED
    told = world.diary.told
    assert told[-1].eta_s == pytest.approx(EVALUATION_S)
    assert told[-1].fraction == pytest.approx(ALL_SEEN - PUBLISHED / ALL)
    world.look_at_all()
    assert world.diary.told[-1].fraction == pytest.approx(ALL_SEEN)


def test_a_training_that_goes_on_counts_what_was_done_before() -> None:
    world = World()
    world.train(state=TrainingState(epoch=1, epoch_step=4, step=8, evaluated_step=4))
    first = world.diary.told[0]
    assert first.fraction == pytest.approx((8 * 4 + NUM_VAL) / ALL)
    assert first.eta_s is None


def test_a_publication_alone_is_timed_by_itself() -> None:
    """The process was killed while it published: nothing is trained, and nothing was timed."""
    world = World()
    world.train(state=TrainingState(epoch=3, step=12, evaluated_step=12))
    world.now += 4.0
    world.meter.saw(2)
    assert world.diary.told[-1].eta_s == pytest.approx(4.0 / 2 * (NUM_VAL - 2))


def test_a_frozen_stage_with_batches_of_its_own_is_counted_in_pictures() -> None:
    config = tiny_config(freeze=FreezeConfig(parts=("backbone",), epochs=1, batch_size=8))
    world = World(config=config)
    world.train()
    assert world.diary.told[-1].steps == 2 + 4 + 4
    assert world.diary.at(1).fraction == pytest.approx(8 / ALL)
    assert world.diary.told[-1].fraction == pytest.approx(ALL_SEEN - PUBLISHED / ALL)


def test_the_end_of_a_measurement_is_told_however_quick_it_was() -> None:
    world = World()
    world.train()
    world.meter.saw(NUM_VAL - 1)
    world.meter.saw(NUM_VAL)
    last = world.diary.told[-1]
    assert (last.fraction, last.eta_s) == (pytest.approx(ALL_SEEN), None)
