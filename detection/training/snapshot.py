"""Take everything that a training needs to go on out of a trainer, and put it back."""

from __future__ import annotations

from dataclasses import asdict

import torch

from detection.errors import CheckpointError
from detection.models.network import Network
from detection.training.checkpoints import Identity, Payload
from detection.training.optimisation import Optimisation
from detection.training.state import TrainingState


def capture(optimisation: Optimisation, state: TrainingState, identity: Identity) -> Payload:
    """Return a checkpoint: weights, average, optimizer, scaler, generators and counters.

    The position in the data needs no more than the counters: samples depend on seed, epoch and position only.
    """
    average = optimisation.average
    return {
        "identity": asdict(identity),
        "state": state.as_json(),
        "model": optimisation.detector.state_dict(),
        "average": None if average is None else average.state_dict(),
        "optimizer": optimisation.optimizer.state_dict(),
        "scaler": optimisation.scaler.state_dict(),
        "generators": {"cpu": torch.get_rng_state(), "cuda": _cuda_generators()},
    }


def restore(payload: Payload, optimisation: Optimisation) -> None:
    """Put a checkpoint's tensors back where `capture` took them from; the generators too.

    Raises:
        CheckpointError: it is of a training with or without an average, unlike this one.
    """
    optimisation.detector.load_state_dict(payload["model"])
    average = optimisation.average
    if (average is None) != (payload["average"] is None):
        raise CheckpointError("the checkpoint and the configuration disagree about averaging the weights")
    if average is not None:
        average.load_state_dict(payload["average"])
    optimisation.optimizer.load_state_dict(payload["optimizer"])
    if payload["scaler"]:  # empty when the training did not scale, as on a CPU
        optimisation.scaler.load_state_dict(payload["scaler"])
    torch.set_rng_state(payload["generators"]["cpu"])
    if len(payload["generators"]["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(payload["generators"]["cuda"])


def load_evaluated_weights(payload: Payload, network: Network) -> None:
    """Give a network the weights of a checkpoint that are published: the average, when there is one."""
    average = payload["average"]
    network.load_state_dict(payload["model"] if average is None else average["model"])


def _cuda_generators() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
