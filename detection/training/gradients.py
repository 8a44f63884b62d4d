"""Leave the gradients of a batch in a network's parameters: all at once, or in parts that need less memory.

In parts, the outputs of the whole batch are computed first, without what a backward pass would need. One loss
over all of them gives its gradient with respect to the outputs; then every part is computed again and passes
its share of that gradient on to the weights. So a loss never sees a part: whatever it divides by is that of
the whole batch, however many terms and normalisers a family has. This costs one more forward pass. Only batch
norm in train mode sees a part where it would see the batch.

Where several ranks share the batch, each computes its pictures, in as many parts; gradients and losses are
those of the whole batch all the same.

Shape suffixes: B = images, H W = input pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from detection.models.network import TrainingMoment, input_size_hw
from detection.targets import Targets
from detection.training.optimisation import Optimisation


def compute_gradients(
    optimisation: Optimisation,
    images_BCHW: Tensor,
    targets: Targets,
    moment: TrainingMoment,
    *,
    parts: int = 1,
) -> dict[str, Tensor]:
    """Add the gradients of one batch, as the scaler scales them; return its losses, detached.

    Args:
        parts: the batch is computed in at most so many parts of nearly equal size, one after the other.
    """
    if parts == 1:
        with optimisation.forward_context():
            losses = optimisation.replicas.compute(
                lambda: optimisation.detector.loss(images_BCHW, targets, moment)
            )
        optimisation.scaler.scale(total_of(losses)).backward()
    else:
        losses = _in_parts(optimisation, images_BCHW, targets, moment, parts)
    return optimisation.replicas.share({name: loss.detach().float() for name, loss in losses.items()})


def total_of(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of loss terms, a scalar."""
    return torch.stack(list(losses.values())).sum()


def _in_parts(
    optimisation: Optimisation, images_BCHW: Tensor, targets: Targets, moment: TrainingMoment, parts: int
) -> dict[str, Tensor]:
    detector, slices = optimisation.detector, _slices(len(images_BCHW), parts)
    outputs = _outputs_of_all(optimisation, [images_BCHW[part] for part in slices], moment)
    with optimisation.forward_context():
        losses = detector.loss_of_outputs(outputs, targets, moment, size_hw=input_size_hw(images_BCHW))
    gradients = torch.autograd.grad(optimisation.scaler.scale(total_of(losses)), outputs)
    for part in slices:
        with optimisation.forward_context():
            computed = optimisation.replicas.compute(
                partial(detector.training_outputs, images_BCHW[part], moment), last=part is slices[-1]
            )
        torch.autograd.backward(computed, [gradient[part] for gradient in gradients])
    return losses


def _outputs_of_all(
    optimisation: Optimisation, parts: list[Tensor], moment: TrainingMoment
) -> tuple[Tensor, ...]:
    """Return the outputs of the whole batch, ready to receive a gradient but cut off from the weights."""
    detector = optimisation.detector
    with _as_it_was(optimisation), torch.no_grad(), optimisation.forward_context():
        outputs = [detector.training_outputs(part, moment) for part in parts]
    return tuple(torch.cat(each).requires_grad_() for each in zip(*outputs, strict=True))


@contextmanager
def _as_it_was(optimisation: Optimisation) -> Iterator[None]:
    """Take back what a forward pass does to batch norms and generators: the pass that counts comes later.

    It then drops the very values that this one dropped.
    """
    detector, device = optimisation.detector, optimisation.device
    norms = [module for module in detector.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    buffers = [buffer for norm in norms for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


def _slices(size: int, parts: int) -> list[slice]:
    length = -(-size // parts)
    return [slice(start, start + length) for start in range(0, size, length)]
