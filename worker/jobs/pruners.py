"""The ways to prune, by the names that the API gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detection.analysis.channel_pruning import prune_channels
from detection.analysis.prune import prune_globally, prune_layers
from detection.analysis.recalibrate import recalibrate_norms
from detection.data.records import Split
from detection.data.wording import counted
from detection.images import decode_image
from detection.model_record import ModelRecord
from detection.models.batch_norm_statistics import recreate_norms
from detection.models.detector import Detector
from detection.preprocess import fit_image
from detection.registry import Registry
from worker.attempt import Attempt
from worker.pictures import StoredDataset

MOST_PICTURES = 64
"""Enough for means and variances: even the coarsest level has thousands of cells in so many pictures."""
BATCH_SIZE = 8

Pruner = Callable[[Detector, float, Sequence[Tensor]], str]
"""Prunes a detector in place and returns a line for the log. The tensors are batches of pictures."""

PRUNERS: Registry[Pruner] = Registry("scope of pruning")


@PRUNERS.register("layer")
def _prune_layers(detector: Detector, amount: float, batches: Sequence[Tensor]) -> str:
    zeros = prune_layers(detector, amount).sparsity
    return f"pruned {amount:g} of each convolution: {zeros:.4f} of all parameters are zero"


@PRUNERS.register("global")
def _prune_globally(detector: Detector, amount: float, batches: Sequence[Tensor]) -> str:
    zeros = prune_globally(detector, amount).sparsity
    return f"pruned {amount:g} of all convolutions together: {zeros:.4f} of all parameters are zero"


@PRUNERS.register("channels")
def _prune_channels(detector: Detector, amount: float, batches: Sequence[Tensor]) -> str:
    """Prune channels; norms that were folded into their convolutions are re-created first."""
    recreate_norms(detector, batches)
    pruned = prune_channels(detector, amount)
    pictures = recalibrate_norms(detector, batches)
    lost = f"{counted(len(pruned.layers), 'layer')} lost channels"
    known = (
        f"norms were measured again on {counted(pictures, 'picture')}"
        if pictures
        else "no norm was measured again"
    )
    return f"{lost}: {pruned.removed:.4f} of all parameters are gone; {known}"


def calibration_pictures(
    attempt: Attempt, dataset: StoredDataset, split: Split, record: ModelRecord, device: torch.device
) -> list[Tensor]:
    """Return batches of pictures as the network takes them: of the training split, or of `split` without one.

    Their labels are not looked at. A lone picture has no statistics: there must be two.
    """
    images = dataset.record.of_split(Split.TRAIN) or dataset.record.of_split(split)
    chosen = images[:: max(len(images) // MOST_PICTURES, 1)][:MOST_PICTURES]
    fitted = []
    for image in chosen:
        attempt.control.pulse()
        picture = decode_image(
            dataset.pictures(image),
            max_pixels=attempt.settings.max_image_pixels,
            input_size_hw=record.input_size_hw,
        )
        fitted.append(
            torch.from_numpy(
                fit_image(
                    picture.pixels,
                    record.input_size_hw,
                    record.input_convention,
                    picture_size_wh=picture.size_wh,
                ).tensor
            )
        )
    if len(fitted) < 2:
        return []
    batches = max(len(fitted) // BATCH_SIZE, 1)
    return [each.to(device) for each in torch.stack(fitted).tensor_split(batches)]
