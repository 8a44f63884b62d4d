"""Batch norm over the batches of all ranks, on any device: every channel has one mean and one variance.

Ioffe and Szegedy, "Batch Normalization", https://arxiv.org/abs/1502.03167

Torch's own `SyncBatchNorm` refuses tensors on a CPU. This one is used on accelerators too, so that what is
tested without them is what runs on them.

Shape suffixes: B = images of this rank, C = channels, H W = cells of the feature map, R = ranks.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable


class _Gathered(torch.autograd.Function):
    """The tensors of all ranks, stacked; a gradient that any rank has of a part goes back to its owner."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        everywhere = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(everywhere, own.contiguous())
        return torch.stack(everywhere)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total[distributed.get_rank()]


def gather_differentiably(own: Tensor) -> Tensor:
    """Return the tensors of all ranks, stacked in the order of ranks; they must have one shape.

    Every rank must use the result, and go backward through it, equally often and in the same order.
    """
    return cast(Tensor, _Gathered.apply(own))


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Computes what `nn.BatchNorm2d` computes on the concatenated batches of all ranks.

    So do its gradient and its running statistics, in which the variance is the unbiased one of all values. A
    rank may have fewer pictures than others, or none. In eval mode, and where there is one rank only, it is
    `nn.BatchNorm2d`.

    In train mode each forward and each backward pass is one collective: all ranks must do the same passes.
    """

    def forward(self, features_BCHW: Tensor) -> Tensor:
        if not self.training or not _several():
            return super().forward(features_BCHW)
        with torch.autocast(features_BCHW.device.type, enabled=False):
            precise_BCHW = features_BCHW.to(torch.promote_types(features_BCHW.dtype, torch.float32))
            count, mean_C, variance_C = _global_moments(precise_BCHW)
            self._remember(count, mean_C.detach(), variance_C.detach())
            scale_C = (variance_C + self.eps).rsqrt() * self.weight
            shift_C = self.bias - mean_C * scale_C
            normed_BCHW = torch.addcmul(_per_channel(shift_C), precise_BCHW, _per_channel(scale_C))
        return normed_BCHW.to(features_BCHW.dtype)

    @torch.no_grad()
    def _remember(self, count: Tensor, mean_C: Tensor, variance_C: Tensor) -> None:
        self.get_buffer("num_batches_tracked").add_(1)
        share = self.momentum
        if share is None:
            share = 1 / float(self.get_buffer("num_batches_tracked"))
        self.get_buffer("running_mean").lerp_(mean_C, share)
        self.get_buffer("running_var").lerp_(variance_C * (count / (count - 1)), share)


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _per_channel(values_C: Tensor) -> Tensor:
    return values_C[:, None, None]


def _global_moments(features_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return how many values a channel has over all ranks, their means and their biased variances.

    Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983: ranks are merged by the
    distance of their means, so nothing cancels out where a mean is large beside its deviation.
    """
    channels = features_BCHW.shape[1]
    own = features_BCHW.numel() // channels
    if own:
        variance_C, mean_C = torch.var_mean(features_BCHW, dim=(0, 2, 3), correction=0)
    else:
        mean_C = variance_C = features_BCHW.sum(dim=(0, 2, 3))
    counts = mean_C.new_full((1,), own)
    moments_R = gather_differentiably(torch.cat((counts, mean_C, variance_C)))
    counts_R1, means_RC, variances_RC = moments_R.split((1, channels, channels), dim=1)
    count = counts_R1.sum()
    if own <= 1 and count <= 1:  # a rank that has more need not wait for its device to know
        raise ValueError("batch norm needs more than one value per channel, over all ranks")
    shares_R1 = counts_R1 / count
    mean_C = (shares_R1 * means_RC).sum(dim=0)
    return count, mean_C, (shares_R1 * (variances_RC + (means_RC - mean_C).square())).sum(dim=0)


def convert_to_synced(module: nn.Module) -> nn.Module:
    """Let every `nn.BatchNorm2d` inside `module` see the batches of all ranks, in place.

    Parameters and buffers stay the same objects under the same names; so does what is frozen or in eval mode.
    Return `module`, or what takes its place when it is a batch norm itself.
    """
    if type(module) is nn.BatchNorm2d:
        return _synced(module)
    for name, child in module.named_children():
        if (converted := convert_to_synced(child)) is not child:
            setattr(module, name, converted)
    return module


def _synced(norm: nn.BatchNorm2d) -> SyncedBatchNorm2d:
    """Return the same norm over all ranks.

    Raises:
        ValueError: it has no weights, or keeps no statistics; no detector has such a norm.
    """
    if not (norm.affine and norm.track_running_stats):
        raise ValueError("only batch norms with weights and running statistics can be synchronised")
    synced = SyncedBatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum, device="meta")
    for name, parameter in norm.named_parameters():
        setattr(synced, name, parameter)
    for name, buffer in norm.named_buffers():
        setattr(synced, name, buffer)
    return synced.train(norm.training)
