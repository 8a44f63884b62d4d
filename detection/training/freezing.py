"""Keep parts of a network from learning for a while: no gradient, fixed statistics, not in the optimizer."""

from __future__ import annotations

from collections.abc import Sequence

from detection.models.network import Network
from detection.training.config import OptimizerConfig
from detection.training.optimisation import Optimisation
from detection.training.optimizers import build_optimizer
from detection.training.plan import EpochPlan
from detection.training.replicas import Replicas
from detection.training.trainer import Callback, Trainer


def freeze(network: Network, parts: Sequence[str]) -> None:
    """Take gradients from the named parts; their batch norms are to be put into eval mode each epoch."""
    for name in parts:
        network.parts()[name].requires_grad_(False)


class FreezeParts(Callback):
    """Holds parts fixed while the plan says so, then lets them learn with a fresh place in the optimizer."""

    def __init__(self, parts: Sequence[str], config: OptimizerConfig) -> None:
        self._parts, self._config = parts, config

    def on_epoch_start(self, trainer: Trainer, plan: EpochPlan) -> None:
        detector = trainer.optimisation.detector
        if plan.frozen:
            for name in self._parts:
                detector.parts()[name].eval()
        elif trainer.state.frozen:
            self._unfreeze(trainer.optimisation)
            trainer.state.frozen = False
            verb = "learns" if len(self._parts) == 1 else "learn"
            trainer.log(f"{' and '.join(self._parts)} {verb} from epoch {plan.epoch + 1} on")

    def _unfreeze(self, optimisation: Optimisation) -> None:
        for name in self._parts:
            optimisation.detector.parts()[name].requires_grad_(True)
        optimisation.replicas = Replicas(optimisation.detector, optimisation.replicas.ranks)
        older = optimisation.optimizer
        optimisation.optimizer = build_optimizer(optimisation.detector, self._config)
        for parameter, momentum in older.state.items():
            optimisation.optimizer.state[parameter] = momentum
