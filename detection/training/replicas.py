"""A detector that learns on several ranks at once: after each step it is the same on all of them.

Gradients are averaged by torch's DistributedDataParallel. Losses are normalised by what all ranks have, so
the averaged gradient is that of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from detection.layers.sync_norm import SyncedBatchNorm2d
from detection.models.network import Network
from detection.training.distributed import Ranks

T = TypeVar("T")


class _Computation(nn.Module):
    """Whatever is computed of a detector, as a module's `forward`: a loss, or the outputs of a part.

    It holds the parameters alone: `Replicas` sees to the buffers.
    """

    def __init__(self, detector: Network) -> None:
        super().__init__()
        self.weights = nn.ParameterList(detector.parameters())

    def forward(self, compute: Callable[[], Any]) -> Any:
        return compute()


class Replicas:
    """The detectors of all ranks, seen from one of them; alone, it is just that one.

    Made anew when other parameters learn than before.
    """

    def __init__(self, detector: Network, ranks: Ranks) -> None:
        """Give every rank the weights and buffers of the first one."""
        self.ranks, self._detector = ranks, detector
        self._parallel = None if ranks.is_alone else _in_parallel(detector)
        for buffer in () if ranks.is_alone else detector.buffers():
            distributed.broadcast(buffer, 0)

    def compute(self, forward: Callable[[], T], *, last: bool = True) -> T:
        """Return what `forward` computes of the detector, ready for a backward pass of every rank.

        Args:
            last: this pass ends the batch: the gradients that all its passes have added up are averaged over
                ranks in its backward pass.
        """
        if self._parallel is None:
            return forward()
        with nullcontext() if last else self._parallel.no_sync():
            return cast(T, self._parallel(forward))

    def share(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms of the whole batch, and give all ranks the mean of their running statistics.

        Batch norms that are synchronised, or whose statistics stand still, have the same already.
        """
        if self.ranks.is_alone:
            return dict(losses)
        buffers = self._diverging()
        terms = torch.stack([each.float() for each in losses.values()])
        sizes = [len(losses), *(each.numel() for each in buffers)]
        means, *shared = self.ranks.mean(torch.cat([terms, *buffers])).split(sizes)
        for buffer, values in zip(buffers, shared, strict=True):
            buffer.copy_(values)
        return dict(zip(losses, means.unbind(), strict=True))

    def _diverging(self) -> list[Tensor]:
        norms = [
            norm
            for norm in self._detector.modules()
            if isinstance(norm, _NormBase) and norm.training and not isinstance(norm, SyncedBatchNorm2d)
        ]
        return [norm.get_buffer(name) for norm in norms for name in ("running_mean", "running_var")]


def _in_parallel(detector: Network) -> DistributedDataParallel:
    """Unused parameters are looked for: what guides a training only rests from some epoch on.

    It also keeps the order in which gradients are added up the same from the first step of a process on.
    """
    return DistributedDataParallel(_Computation(detector), find_unused_parameters=True)
