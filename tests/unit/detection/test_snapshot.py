"""What goes into a checkpoint comes out of it, to the bit."""

from __future__ import annotations

import io

import pytest
import torch

from detection.errors import CheckpointError
from detection.training.checkpoints import Identity, Payload
from detection.training.config import EmaConfig, OptimizerConfig, OptimizerKind
from detection.training.snapshot import capture, load_evaluated_weights, restore
from detection.training.state import StopReason, TrainingState
from detection.training.trainer import Callback, StepResult, Trainer
from tests.tiny_training import TinyDetector, same, tiny_config, tiny_trainer, weights

IDENTITY = Identity(config_sha256="c", dataset_sha256="d")


class StopAfter(Callback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        if step.step == self._step:
            trainer.stop(StopReason.DRAINED)


def through_a_file(trainer: Trainer) -> Payload:
    buffer = io.BytesIO()
    torch.save(capture(trainer.optimisation, trainer.state, IDENTITY), buffer)
    buffer.seek(0)
    payload: Payload = torch.load(buffer, weights_only=True)
    return payload


@pytest.mark.parametrize("kind", list(OptimizerKind))
@pytest.mark.parametrize("step", [1, 5, 8])
def test_a_training_goes_on_to_the_very_same_weights(kind: OptimizerKind, step: int) -> None:
    config = tiny_config(optimizer=OptimizerConfig(kind=kind))
    undisturbed = tiny_trainer(config=config)
    undisturbed.fit()

    first = tiny_trainer([StopAfter(step)], config=config)
    first.fit()
    payload = through_a_file(first)
    second = tiny_trainer(config=config, state=TrainingState.from_json(payload["state"]))
    restore(payload, second.optimisation)
    assert same(weights(second), weights(first))
    second.fit()
    assert same(weights(second), weights(undisturbed))


def test_the_generators_go_on_where_they_were() -> None:
    trainer = tiny_trainer()
    payload = through_a_file(trainer)
    expected = torch.rand(3)
    restore(payload, trainer.optimisation)
    assert torch.equal(torch.rand(3), expected)


def test_the_counters_survive_as_json() -> None:
    state = TrainingState(
        epoch=2, step=9, best_score=0.5, best_metrics={"per_class": [{"ap": None}]}, values={"loss": 1.5}
    )
    assert TrainingState.from_json(state.as_json()) == state


def test_the_average_is_what_gets_evaluated() -> None:
    trainer = tiny_trainer()
    trainer.fit()
    payload, detector = through_a_file(trainer), TinyDetector()
    load_evaluated_weights(payload, detector)
    assert same(list(detector.state_dict().values()), list(trainer.evaluated_model.state_dict().values()))
    assert not torch.equal(detector.head.weight, trainer.optimisation.detector.get_parameter("head.weight"))


def test_without_an_average_the_weights_themselves_are() -> None:
    trainer = tiny_trainer(config=tiny_config(ema=EmaConfig(enabled=False)))
    trainer.fit()
    payload, detector = through_a_file(trainer), TinyDetector()
    load_evaluated_weights(payload, detector)
    assert torch.equal(detector.head.weight, trainer.optimisation.detector.get_parameter("head.weight"))
    with pytest.raises(CheckpointError, match="disagree about averaging"):
        restore(payload, tiny_trainer().optimisation)


def test_a_training_may_go_on_where_gradients_are_scaled() -> None:
    """A checkpoint of a CPU has no scale; an accelerator begins with its own."""
    payload = through_a_file(tiny_trainer())
    elsewhere = tiny_trainer().optimisation
    elsewhere.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=True)
    restore(payload, elsewhere)
    assert elsewhere.scaler.get_scale() == 8.0
