"""What happens around the training loop: evaluation, checkpoints, reports, requests, limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from detection.errors import TrainingDivergedError
from detection.evaluation.coco import CocoMetrics, measure_detections
from detection.evaluation.metrics import Metrics
from detection.models.detector import Detector
from detection.training.callbacks import (
    Evaluate,
    LimitTime,
    ObeyRequests,
    SaveCheckpoints,
    StopAtStep,
    StopEarly,
    evaluation_is_due,
)
from detection.training.config import ScheduleConfig
from detection.training.plan import EpochPlan, TrainingPlan
from detection.training.report import Report
from detection.training.reporting import SilentReporter
from detection.training.state import StopReason, StopRequest, TrainingState
from detection.training.trainer import Callback, StepResult, Trainer
from tests.tiny_training import DrawnBatches, tiny_config, tiny_trainer

NOTHING_FOUND: CocoMetrics = measure_detections([], [], ["cat"])


class Notebook(SilentReporter):
    """A reporter that writes everything down."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.starts: list[int] = []
        self.rows: list[tuple[int, int, dict[str, float]]] = []
        self.checkpoints: list[int] = []

    def on_stage(self, stage: str) -> None:
        self.stages.append(stage)

    def on_start(self, step: int) -> None:
        self.starts.append(step)

    def on_metrics(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self.rows.append((step, epoch, dict(values)))

    def on_checkpoint(self, step: int) -> None:
        self.checkpoints.append(step)


class Ticking:
    """A clock that moves by a fixed time whenever it is read."""

    def __init__(self, tick: float = 1.0) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


class Scripted:
    """A measure that returns the scripted APs one after the other."""

    def __init__(self, *aps: float | None) -> None:
        self._aps = iter(aps)
        self.measured: list[Detector] = []

    def __call__(self, detector: Detector, interrupted: Callable[[], bool]) -> CocoMetrics | None:
        if interrupted():
            return None
        self.measured.append(detector)
        return replace(NOTHING_FOUND, ap=next(self._aps))


class Ask(Callback):
    """Files a request once a step is done."""

    def __init__(self, at_step: int, request: StopRequest) -> None:
        self._at_step, self._request = at_step, request
        self.request: StopRequest | None = None

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        if step.step == self._at_step:
            self.request = self._request

    def __call__(self) -> StopRequest | None:
        return self.request


def nobody() -> None:
    return None


def evaluating(
    measure: Scripted, every: int = 1, requests: Callable[[], StopRequest | None] = nobody
) -> Evaluate:
    return Evaluate(measure, every_epochs=every, requests=requests, reporter=SilentReporter())


def test_the_average_is_measured_and_the_best_remembered() -> None:
    measure = Scripted(0.1, 0.3, 0.2)
    trainer = tiny_trainer([evaluating(measure)])
    trainer.fit()
    assert measure.measured == [trainer.evaluated_model] * 3
    state = trainer.state
    assert (state.best_score, state.best_step, state.evaluated_step) == (0.3, 8, 12)
    assert state.best_metrics["ap"] == 0.3


def test_of_equal_aps_the_later_is_the_best() -> None:
    trainer = tiny_trainer([evaluating(Scripted(0.0, 0.2, 0.2))])
    trainer.fit()
    assert trainer.state.best_step == 12


def test_an_ap_that_cannot_be_told_makes_nothing_the_best() -> None:
    trainer = tiny_trainer([evaluating(Scripted(None, None, None))])
    trainer.fit()
    assert trainer.state.best_step is None


def test_evaluations_are_due_every_so_often_in_the_tail_and_at_the_end() -> None:
    config = tiny_config(epochs=10, schedule=ScheduleConfig(no_aug_epochs=2))
    plan = TrainingPlan(config, num_images=16)
    assert [each.epoch for each in plan if evaluation_is_due(each, plan, 3)] == [2, 5, 8, 9]
    config = tiny_config(epochs=10, schedule=ScheduleConfig(no_aug_epochs=0))
    plan = TrainingPlan(config, num_images=16)
    assert [each.epoch for each in plan if evaluation_is_due(each, plan, 4)] == [3, 7, 9]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [(StopRequest.CANCEL, StopReason.CANCELLED), (StopRequest.DRAIN, StopReason.DRAINED)],
)
def test_an_evaluation_gives_way_to_a_request_to_stop(request_: StopRequest, reason: StopReason) -> None:
    ask = Ask(4, request_)
    trainer = tiny_trainer([ask, evaluating(Scripted(), requests=ask)])
    assert trainer.fit() is reason
    assert (trainer.state.epoch, trainer.state.epoch_step, trainer.state.evaluated_step) == (0, 4, None)


def test_a_training_that_is_to_finish_measures_its_last_weights() -> None:
    ask, measure = Ask(6, StopRequest.FINISH), Scripted(0.5, 0.4)
    trainer = tiny_trainer([ask, evaluating(measure, requests=ask), ObeyRequests(ask)])
    assert trainer.fit() is StopReason.FINISHED
    assert (trainer.state.step, trainer.state.evaluated_step, trainer.state.best_step) == (6, 6, 4)


def test_the_last_weights_are_not_measured_twice() -> None:
    ask, measure = Ask(4, StopRequest.FINISH), Scripted(0.5)
    callbacks: list[Callback] = [evaluating(measure, requests=ask), ObeyRequests(ask)]

    class FinishAfterEvaluation(Callback):
        def on_evaluated(self, trainer: Trainer, metrics: Metrics) -> None:
            trainer.stop(StopReason.FINISHED)

    tiny_trainer([*callbacks, FinishAfterEvaluation()]).fit()
    assert len(measure.measured) == 1


def test_a_cancelled_finish_is_a_cancel() -> None:
    class Impatient(Ask):
        def __call__(self) -> StopRequest | None:
            asked, self.request = self.request, self.request and StopRequest.CANCEL
            return asked

    ask = Impatient(2, StopRequest.FINISH)
    trainer = tiny_trainer([ask, evaluating(Scripted(), requests=ask), ObeyRequests(ask)])
    assert trainer.fit() is StopReason.CANCELLED


@pytest.mark.parametrize("request_", list(StopRequest))
def test_a_request_is_obeyed_after_the_step_at_hand(request_: StopRequest) -> None:
    ask = Ask(3, request_)
    trainer = tiny_trainer([ask, ObeyRequests(ask)])
    trainer.fit()
    assert trainer.state.step == 3
    already = Ask(0, request_)
    already.request = request_
    trainer = tiny_trainer([ObeyRequests(already)])
    trainer.fit()
    assert trainer.state.step == 0


def test_a_training_that_gets_no_better_ends_early() -> None:
    lines: list[str] = []
    measure = Scripted(0.1, 0.3, 0.305, 0.2, 0.9)
    stop = StopEarly(patience=2, min_delta=0.01)
    trainer = tiny_trainer([evaluating(measure), stop], config=tiny_config(epochs=6), log=lines.append)
    assert trainer.fit() is StopReason.EARLY_STOPPED
    assert trainer.state.epoch == 4
    assert trainer.state.best_score == 0.305
    assert lines == ["no better AP in 2 evaluations: the training ends early"]


def test_small_gains_add_up() -> None:
    measure = Scripted(0.1, 0.104, 0.108, 0.112, 0.116, 0.12)
    stop = StopEarly(patience=3, min_delta=0.01)
    trainer = tiny_trainer([evaluating(measure), stop], config=tiny_config(epochs=6))
    assert trainer.fit() is StopReason.COMPLETED


def test_a_training_whose_ap_cannot_be_told_does_not_end_early() -> None:
    stop = StopEarly(patience=1, min_delta=0)
    trainer = tiny_trainer([evaluating(Scripted(None, None, None)), stop])
    assert trainer.fit() is StopReason.COMPLETED


def test_a_training_that_ended_early_does_not_go_on_when_it_is_called_again() -> None:
    state = TrainingState(epoch=1, step=4, evaluations_without_gain=2)
    trainer = tiny_trainer([StopEarly(patience=2, min_delta=0)], state=state)
    assert trainer.fit() is StopReason.EARLY_STOPPED
    assert trainer.state.step == 4


def saved_at(trainer_callbacks: list[Callback], **options: Any) -> list[tuple[int, int]]:
    saved: list[tuple[int, int]] = []
    clock = options.pop("clock", Ticking(0.0))
    save = SaveCheckpoints(
        lambda trainer: saved.append((trainer.state.step, trainer.state.epoch)), clock=clock, **options
    )
    config = tiny_config(epochs=5)
    tiny_trainer([*trainer_callbacks, save], config=config).fit()
    return saved


def test_checkpoints_come_every_so_many_epochs_and_at_the_end() -> None:
    assert saved_at([], every_epochs=1) == [(4, 1), (8, 2), (12, 3), (16, 4), (20, 5)]
    assert saved_at([], every_epochs=2) == [(8, 2), (16, 4), (20, 5)]
    assert saved_at([], every_epochs=9) == [(20, 5)]


def test_the_best_weights_are_saved_whenever_they_come() -> None:
    measure = Scripted(0.1, 0.3, 0.2, 0.2, 0.2)
    assert saved_at([evaluating(measure)], every_epochs=9) == [(4, 1), (8, 2), (20, 5)]


def test_a_long_epoch_is_saved_on_the_way() -> None:
    assert saved_at([], every_epochs=9, every_s=3.0, clock=Ticking()) == [
        *((3, 0), (6, 1), (9, 2), (12, 2), (15, 3), (18, 4)),
        (20, 5),
    ]


@pytest.mark.parametrize("request_", list(StopRequest))
def test_a_stopped_training_is_saved_where_it_stands(request_: StopRequest) -> None:
    ask = Ask(6, request_)
    assert saved_at([ask, ObeyRequests(ask)], every_epochs=1) == [(4, 1), (6, 1)]


def test_a_checkpoint_that_is_there_is_not_written_again() -> None:
    ask = Ask(8, StopRequest.DRAIN)

    class AskAtTheEnd(Callback):
        def on_epoch_end(self, trainer: Trainer, plan: EpochPlan) -> None:
            if trainer.state.step == 8:
                trainer.stop(StopReason.DRAINED)

    assert saved_at([ask, AskAtTheEnd()], every_epochs=1) == [(4, 1), (8, 2)]


def test_callbacks_hear_of_a_checkpoint() -> None:
    notebook = Notebook()
    save = SaveCheckpoints(lambda trainer: None, every_epochs=1)
    tiny_trainer([Report(notebook), save]).fit()
    assert notebook.checkpoints == [4, 8, 12]


def test_weights_after_a_loss_that_is_not_finite_are_never_saved() -> None:
    """An accelerator is asked rarely, so a checkpoint asks first."""
    saved: list[int] = []
    save = SaveCheckpoints(lambda trainer: saved.append(trainer.state.step), every_epochs=1)
    trainer = tiny_trainer(
        [save], source=DrawnBatches(lambda step, images: images * (torch.nan if step == 5 else 1))
    )
    with pytest.raises(TrainingDivergedError):
        as_if_accelerated(trainer).fit()
    assert trainer.state.step == 8
    assert saved == [4]


def test_the_time_limit_counts_over_attempts_and_starts_again_after_it_was_reached() -> None:
    lines: list[str] = []
    state = TrainingState(elapsed_s=2.0)
    trainer = tiny_trainer([LimitTime(5.0, clock=Ticking())], state=state, log=lines.append)
    assert trainer.fit() is StopReason.TIME_LIMIT
    assert trainer.state.step == 3
    assert trainer.state.elapsed_s == 0.0
    assert lines == ["the time limit of 5 s is reached"]


def test_time_is_counted_without_a_limit_too() -> None:
    trainer = tiny_trainer([LimitTime(None, clock=Ticking())])
    assert trainer.fit() is StopReason.COMPLETED
    assert trainer.state.elapsed_s == 12.0


def test_every_step_of_a_short_training_is_a_row() -> None:
    notebook = Notebook()
    trainer = tiny_trainer([Report(notebook, clock=Ticking())])
    trainer.fit()
    assert [(step, epoch) for step, epoch, _ in notebook.rows] == [
        (n, (n - 1) // 4 + 1) for n in range(1, 13)
    ]
    assert set(notebook.rows[0][2]) == {"loss", "error", "size", "boxes", "lr", "images_per_s"}
    assert notebook.starts == [0]
    assert notebook.stages == ["training"]


def as_if_accelerated(trainer: Trainer) -> Trainer:
    """Let the trainer believe in a device that reading makes wait; it computes on the CPU all the same."""
    trainer.optimisation.device = torch.device("meta")
    trainer.optimisation.forward_context = lambda: torch.autocast("cpu", enabled=False)  # type: ignore[method-assign]
    return trainer


class Count(Callback):
    """Writes down how many rows were told after each step."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook
        self.told: list[int] = []

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        self.told.append(len(self._notebook.rows))


def test_an_accelerator_is_read_in_blocks_and_no_step_is_left_out() -> None:
    """A step takes 0.3 s: a block is read when a second is over, and when the epoch is."""
    notebook, clock = Notebook(), Ticking(0.0)

    def batch(step: int, images: torch.Tensor) -> torch.Tensor:
        clock.now += 0.3
        return images

    count, at_once = Count(notebook), Notebook()
    config = tiny_config(epochs=2, batch_size=2)
    report = Report(notebook, clock=clock)
    as_if_accelerated(tiny_trainer([report, count], config=config, source=DrawnBatches(batch))).fit()
    assert count.told == [0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 16]
    assert [step for step, _, _ in notebook.rows] == list(range(1, 17))
    tiny_trainer([Report(at_once)], config=config).fit()
    for (_, _, found), (_, _, expected) in zip(notebook.rows, at_once.rows, strict=True):
        assert found.pop("images_per_s") == pytest.approx(2 / 0.3)
        assert expected.pop("images_per_s") > 0
        assert found == expected


@pytest.mark.parametrize("at_step", [2, 6])
def test_every_row_is_told_before_the_checkpoint_of_its_step(at_step: int) -> None:
    notebook, told = Notebook(), list[tuple[int, int, float]]()

    def save(trainer: Trainer) -> None:
        told.append((trainer.state.step, notebook.rows[-1][0], trainer.state.values["loss"]))

    ask = Ask(at_step, StopRequest.DRAIN)
    clock = Ticking(0.0)
    callbacks = [
        Report(notebook, clock=clock),
        *(ask, ObeyRequests(ask), SaveCheckpoints(save, every_epochs=9, clock=clock)),
    ]
    as_if_accelerated(tiny_trainer(callbacks)).fit()
    assert told == [(at_step, at_step, notebook.rows[-1][2]["loss"])]


def test_the_rows_before_a_divergence_are_told() -> None:
    notebook = Notebook()
    source = DrawnBatches(lambda step, images: images * (torch.nan if step == 2 else 1))
    report = Report(notebook, clock=Ticking(0.0))
    trainer = as_if_accelerated(tiny_trainer([report], source=source))
    with pytest.raises(TrainingDivergedError):
        trainer.fit()
    assert [(step, math.isfinite(values["loss"])) for step, _, values in notebook.rows] == [
        *((1, True), (2, True), (3, False), (4, False))
    ]


def test_a_measured_ap_joins_the_row_of_its_step() -> None:
    notebook, lines = Notebook(), list[str]()
    callbacks = [Report(notebook), evaluating(Scripted(0.25, None, 0.5))]
    tiny_trainer(callbacks, log=lines.append).fit()
    at_4 = [values for step, _, values in notebook.rows if step == 4]
    assert len(at_4) == 2
    assert at_4[1] == {**at_4[0], "ap": 0.25}
    assert [values.get("ap") for step, _, values in notebook.rows if step == 8] == [None, None]
    assert lines == ["epoch 1: ap 0.2500", "epoch 2: nothing to measure on", "epoch 3: ap 0.5000"]


class Dawdle(Callback):
    """Takes a long time over each epoch's evaluation and checkpoint."""

    def __init__(self, clock: Ticking) -> None:
        self._clock = clock

    def on_epoch_end(self, trainer: Trainer, plan: EpochPlan) -> None:
        self._clock.now += 1000


def test_the_speed_is_that_of_the_training_alone() -> None:
    def speeds(clock: Ticking, *others: Callback) -> list[float]:
        notebook = Notebook()
        tiny_trainer([Report(notebook, clock=clock), *others]).fit()
        return [values["images_per_s"] for _, _, values in notebook.rows]

    dawdling = Ticking()
    assert speeds(dawdling, Dawdle(dawdling)) == speeds(Ticking())


@pytest.mark.parametrize("at", [3, 4, 8, 12])
def test_a_training_up_to_a_step_publishes_the_weights_of_that_step(at: int) -> None:
    """In the middle of an epoch, at its end, and at the end of all; whatever AP was measured before."""
    saved: list[tuple[int, bool]] = []

    def save(trainer: Trainer) -> None:
        saved.append((trainer.state.step, trainer.state.best_step == trainer.state.step))

    measure = Scripted(0.9, 0.1, 0.2, 0.3)
    callbacks = [evaluating(measure), StopAtStep(at), SaveCheckpoints(save, every_epochs=1)]
    trainer = tiny_trainer(callbacks)
    assert trainer.fit() is StopReason.STEP_REACHED
    assert StopReason.STEP_REACHED.publishes
    assert (trainer.state.step, trainer.state.evaluated_step) == (at, at)
    assert saved[-1] == (at, True)


def test_a_training_that_has_reached_its_step_already_only_measures() -> None:
    state = TrainingState(epoch=1, step=4, evaluated_step=None)
    trainer = tiny_trainer([evaluating(Scripted(0.5)), StopAtStep(4)], state=state)
    assert trainer.fit() is StopReason.STEP_REACHED
    assert (state.step, state.evaluated_step, state.best_step) == (4, 4, 4)
