"""The training loop, with a detector of a few hundred weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detection.errors import DeviceMemoryError, TrainingDivergedError
from detection.evaluation.metrics import Metrics
from detection.models.detector import TrainingMoment
from detection.training.config import EmaConfig, FreezeConfig, OptimizerConfig
from detection.training.plan import EpochPlan
from detection.training.state import StopReason, TrainingState
from detection.training.trainer import Callback, StepResult, Trainer, values_of
from tests.tiny_training import DrawnBatches, TinyDetector, same, tiny_config, tiny_trainer, weights


class Recorder(Callback):
    """Writes down what it is told, and asks for a stop at one of the moments."""

    def __init__(self, stop_at: str = "", reason: StopReason = StopReason.CANCELLED) -> None:
        self.told: list[str] = []
        self.steps: list[StepResult] = []
        self._stop_at, self._reason = stop_at, reason

    def _tell(self, trainer: Trainer, moment: str) -> None:
        self.told.append(moment)
        if moment == self._stop_at:
            trainer.stop(self._reason)

    def on_fit_start(self, trainer: Trainer) -> None:
        self._tell(trainer, "start")

    def on_epoch_start(self, trainer: Trainer, plan: EpochPlan) -> None:
        self._tell(trainer, f"epoch {plan.epoch}")

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        self.steps.append(step)
        self._tell(trainer, f"step {step.step}")

    def on_epoch_trained(self, trainer: Trainer, plan: EpochPlan) -> None:
        self._tell(trainer, f"trained {plan.epoch}")

    def on_evaluated(self, trainer: Trainer, metrics: Metrics) -> None:
        self._tell(trainer, "evaluated")

    def on_epoch_end(self, trainer: Trainer, plan: EpochPlan) -> None:
        self._tell(trainer, f"end {plan.epoch}")

    def on_fit_end(self, trainer: Trainer) -> None:
        self._tell(trainer, "fit end")


def test_the_moments_of_a_training_come_in_order() -> None:
    recorder = Recorder()
    trainer = tiny_trainer([recorder], config=tiny_config(epochs=2))
    assert trainer.fit() is StopReason.COMPLETED
    first = ["epoch 0", "step 1", "step 2", "step 3", "step 4", "trained 0", "end 0"]
    second = ["epoch 1", "step 5", "step 6", "step 7", "step 8", "trained 1", "end 1"]
    assert recorder.told == ["start", *first, *second, "fit end"]
    assert (trainer.state.step, trainer.state.epoch, trainer.state.epoch_step) == (8, 2, 0)


def test_the_loss_falls_and_the_average_follows() -> None:
    recorder = Recorder()
    trainer = tiny_trainer([recorder], config=tiny_config(epochs=12, optimizer=OptimizerConfig(lr=0.2)))
    before = weights(trainer)
    trainer.fit()
    losses = [values["loss"] for values in values_of(recorder.steps)]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    assert not same(before, weights(trainer))
    average = trainer.optimisation.average
    assert average is not None
    assert average.updates == 48
    assert trainer.evaluated_model is average.model


def test_the_first_step_runs_at_the_start_of_the_schedule() -> None:
    """The value for iteration t is set after step t-1, so the first step runs at f(0)."""
    recorder = Recorder()
    trainer = tiny_trainer([recorder])
    trainer.fit()
    expected = [trainer.optimisation.schedule.lr_at(step) for step in range(12)]
    assert [step.lr for step in recorder.steps] == expected
    assert expected[0] == 0.0


def test_a_frozen_stage_with_another_batch_changes_rate_and_steps() -> None:
    recorder = Recorder()
    freeze = FreezeConfig(parts=("backbone",), epochs=1, batch_size=8)
    trainer = tiny_trainer([recorder], config=tiny_config(freeze=freeze))
    trainer.fit()
    rate = trainer.optimisation.schedule.lr_at
    assert [step.num_images for step in recorder.steps] == [8] * 2 + [4] * 8
    assert [step.lr for step in recorder.steps][:4] == [0.0, 2 * rate(2), rate(4), rate(5)]


def test_the_detector_hears_which_epoch_it_is_and_when_the_tail_begins() -> None:
    trainer = tiny_trainer()
    trainer.fit()
    detector = trainer.optimisation.detector
    assert isinstance(detector, TinyDetector)
    assert [(moment.epoch, moment.tail) for moment in detector.moments[::4]] == [
        (0, False),
        (1, False),
        (2, True),
    ]


def test_a_step_reports_losses_their_sum_and_statistics() -> None:
    recorder = Recorder("step 1")
    tiny_trainer([recorder]).fit()
    (values,) = values_of(recorder.steps)
    assert set(values) == {"loss", "error", "size", "boxes"}
    assert values["loss"] == pytest.approx(values["error"] + values["size"])
    assert values["boxes"] == 4
    assert not any(loss.requires_grad for loss in recorder.steps[0].losses.values())


@pytest.mark.parametrize(
    "stop_at", ["start", "step 1", "step 3", "step 4", "trained 0", "end 0", "step 7", "trained 2"]
)
def test_a_stopped_training_goes_on_to_the_very_same_weights(stop_at: str) -> None:
    undisturbed = tiny_trainer()
    undisturbed.fit()

    first = tiny_trainer([Recorder(stop_at, StopReason.DRAINED)])
    assert first.fit() is StopReason.DRAINED
    second = tiny_trainer([recorder := Recorder()], detector=None, state=first.state)
    second.optimisation = first.optimisation
    assert second.fit() is StopReason.COMPLETED
    assert same(weights(second), weights(undisturbed))
    assert second.state.step == 12
    done = [step.step for step in recorder.steps]
    assert done == list(range(13 - len(done), 13))


def test_an_evaluation_that_was_cut_short_is_due_again() -> None:
    first = tiny_trainer([Recorder("trained 0", StopReason.DRAINED)])
    first.fit()
    assert (first.state.epoch, first.state.epoch_step, first.state.step) == (0, 4, 4)
    recorder = Recorder()
    tiny_trainer([recorder], state=first.state).fit()
    assert recorder.told[:4] == ["start", "epoch 0", "trained 0", "end 0"]


def test_giving_up_outranks_publishing_but_not_the_other_way_round() -> None:
    trainer = tiny_trainer()
    trainer.stop(StopReason.FINISHED)
    trainer.stop(StopReason.CANCELLED)
    assert trainer.reason is StopReason.CANCELLED
    trainer.stop(StopReason.FINISHED)
    assert trainer.reason is StopReason.CANCELLED


def test_without_an_average_the_detector_itself_is_evaluated() -> None:
    trainer = tiny_trainer(config=tiny_config(ema=EmaConfig(enabled=False)))
    trainer.fit()
    assert trainer.evaluated_model is trainer.optimisation.detector


def test_gradients_are_clipped_to_a_norm() -> None:
    norms: list[float] = []

    class Norm(Callback):
        def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
            gradients = [each.grad for each in trainer.optimisation.detector.parameters()]
            norms.append(math.sqrt(sum(float(each.square().sum()) for each in gradients if each is not None)))

    tiny_trainer([Norm()], config=tiny_config(optimizer=OptimizerConfig(clip_norm=1e-3))).fit()
    assert max(norms) <= 1.001e-3
    assert norms[0] == pytest.approx(1e-3, rel=1e-3)


class SmallDevice(TinyDetector):
    """Runs out of memory with more than a number of pictures at once."""

    def __init__(self, room: int, *, from_call: int = 0) -> None:
        super().__init__()
        self._room, self._from_call, self._calls = room, from_call, 0

    def training_outputs(self, images_BCHW: Tensor, moment: TrainingMoment) -> tuple[Tensor, ...]:
        self._calls += 1
        if self._calls > self._from_call and len(images_BCHW) > self._room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().training_outputs(images_BCHW, moment)


@pytest.mark.parametrize(("room", "parts"), [(2, [2, 2]), (1, [1, 1, 1, 1])])
def test_out_of_memory_halves_the_part_of_a_batch_that_is_computed_at_once(
    room: int, parts: list[int]
) -> None:
    lines: list[str] = []
    recorder = Recorder("step 2")
    trainer = tiny_trainer([recorder], detector=SmallDevice(room), log=lines.append)
    trainer.fit()
    detector = trainer.optimisation.detector
    assert isinstance(detector, SmallDevice)
    assert detector.batch_sizes == 2 * (2 * parts), (
        "two steps, each with a pass for the loss and one to learn"
    )
    assert trainer.state.micro_batches == len(parts)
    assert len(lines) == {2: 1, 1: 2}[room]
    assert f"in {len(parts)} parts" in lines[-1]
    assert [step.num_images for step in recorder.steps] == [4, 4]


def test_memory_that_is_too_small_for_one_picture_is_an_error() -> None:
    trainer = tiny_trainer(detector=SmallDevice(0))
    with pytest.raises(DeviceMemoryError, match="batch of 4 computed in 4 parts"):
        trainer.fit()


def test_running_out_of_memory_late_is_left_to_a_fresh_process() -> None:
    trainer = tiny_trainer(detector=SmallDevice(2, from_call=4))
    with pytest.raises(DeviceMemoryError) as caught:
        trainer.fit()
    assert caught.value.micro_batches == 1
    assert trainer.state.step == 4


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    class Broken(TinyDetector):
        def training_outputs(self, images_BCHW: Tensor, moment: TrainingMoment) -> tuple[Tensor, ...]:
            raise RuntimeError("a shape does not fit")

    with pytest.raises(RuntimeError, match="a shape does not fit"):
        tiny_trainer(detector=Broken()).fit()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_attempt(bad: float) -> None:
    source = DrawnBatches(lambda step, images: images * bad if step == 5 else images)
    trainer = tiny_trainer(source=source)
    with pytest.raises(TrainingDivergedError, match="step 6") as caught:
        trainer.fit()
    assert not math.isfinite(caught.value.losses["loss"])


def test_a_lower_rate_after_a_setback_lowers_every_step() -> None:
    recorder = Recorder()
    trainer = tiny_trainer([recorder], state=TrainingState(lr_factor=0.25))
    trainer.fit()
    assert recorder.steps[5].lr == 0.25 * trainer.optimisation.schedule.lr_at(5)


def test_mixed_precision_computes_the_forward_pass_in_half() -> None:
    seen: list[torch.dtype] = []

    class Watching(TinyDetector):
        def forward(self, images_BCHW: Tensor) -> Tensor:
            raw_BPC = super().forward(images_BCHW)
            seen.append(raw_BPC.dtype)
            return raw_BPC

    trainer = tiny_trainer([Recorder("step 2")], detector=Watching())
    trainer.optimisation.autocast_dtype = torch.bfloat16
    trainer.fit()
    assert set(seen) == {torch.bfloat16}
    assert all(each.dtype is torch.float32 for each in trainer.optimisation.detector.parameters())
