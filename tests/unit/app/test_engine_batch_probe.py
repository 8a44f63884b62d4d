"""The batch size of an accelerator: as was decided, or as large as it pays, and never more than fits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from torch import Tensor, nn

from app.engine.batch_probe import fitting_batch_size, learn_batch_size
from detection.devices import CPU
from detection.inference.backends import eager
from detection.inference.backends.cuda_graphs import GraphedNetwork, Outputs, RunNetwork
from detection.inference.backends.eager import EagerBackend
from detection.inference.predictor import Predictor, Prepared
from detection.inference.serving import Precision
from detection.model_record import ModelRecord
from detection.models.network import Network
from detection.preprocess import FittedImage, Placement


class Accelerator:
    """Takes a fixed time per batch and some per picture; from a size on they only queue up, or do not fit."""

    def __init__(self, *, side_by_side: int, fits: int = 1000) -> None:
        self.now, self.tried = 0.0, list[int]()
        self._side_by_side, self._fits = side_by_side, fits

    def run(self, size: int) -> None:
        self.tried.append(size)
        if size > self._fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.now += 0.010 * max(size / self._side_by_side, 1)

    def learn(self, most: int = 64) -> int:
        return learn_batch_size(self.run, most=most, clock=lambda: self.now)


@pytest.mark.parametrize(("side_by_side", "learnt"), [(1, 1), (8, 8), (12, 16), (1000, 64)])
def test_it_grows_while_that_pays(side_by_side: int, learnt: int) -> None:
    assert Accelerator(side_by_side=side_by_side).learn() == learnt


def test_it_stops_where_the_memory_ends() -> None:
    small = Accelerator(side_by_side=1000, fits=20)
    assert small.learn() == 16
    assert max(small.tried) == 32


def test_no_more_is_tried_than_allowed() -> None:
    accelerator = Accelerator(side_by_side=1000)
    assert accelerator.learn(most=5) == 4
    assert max(accelerator.tried) == 4


def test_a_model_that_does_not_fit_at_all_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Accelerator(side_by_side=1, fits=0).learn()


@pytest.mark.parametrize(
    ("fits", "found", "tried"), [(64, 32, [32]), (10, 8, [32, 16, 8]), (0, 1, [32, 16, 8, 4, 2])]
)
def test_a_size_that_was_decided_on_is_only_halved_where_it_does_not_fit(
    fits: int, found: int, tried: list[int]
) -> None:
    small = Accelerator(side_by_side=1, fits=fits)
    assert fitting_batch_size(small.run, wanted=32) == found
    assert small.tried == tried


def test_what_is_no_lack_of_memory_ends_the_search() -> None:
    def fail(size: int) -> None:
        raise Fail("Node () Op (Conv) invalid shape")

    with pytest.raises(Fail):
        fitting_batch_size(fail, wanted=8)


Run = tuple[str, int, torch.dtype]
"""How a batch was computed, of how many pictures, in which numbers."""


@dataclass
class Recorded:
    """Stands in for a CUDA graph."""

    images_BCHW: Tensor
    outputs: Outputs
    ran: list[Run]

    def replay(self) -> None:
        self.ran.append(("graph", len(self.images_BCHW), self.images_BCHW.dtype))


def graphed(ran: list[Run]) -> Predictor:
    """Return a model in half precision with graphs for up to four pictures."""

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 1)

        def fuse(self) -> None:
            pass

        def predict(self, images_BCHW: Tensor) -> Outputs:
            ran.append(("plain", len(images_BCHW), images_BCHW.dtype))
            boxes_BP4, scores_BP1 = self.conv(images_BCHW).flatten(2).transpose(1, 2).split((4, 1), dim=2)
            return boxes_BP4, scores_BP1.sigmoid()

    def capture(run: RunNetwork, images_BCHW: Tensor) -> Recorded:
        return Recorded(images_BCHW, run(images_BCHW), ran)

    def now(device: torch.device) -> float:
        return float(sum(how == "plain" for how, *_ in ran))  # a replay takes no time

    record = ModelRecord(architecture="yolox-nano", classes=("cat",), input_size_hw=(32, 32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            eager, "GraphedNetwork", partial(GraphedNetwork, batch_sizes=(1, 2, 4), capture=capture, now=now)
        )
        network = cast(Network, Tiny())
        backend = EagerBackend(network, CPU, precision=Precision.BF16, graphs_for_hw=(32, 32))
    ran.clear()
    return Predictor(backend, record)


def test_what_is_probed_is_what_then_serves() -> None:
    """By graphs where there are any, and in the precision that was chosen."""
    ran: list[Run] = []
    predictor = graphed(ran)
    assert learn_batch_size(predictor.warm_up, most=8, clock=lambda: float(len(ran))) == 8
    half = torch.bfloat16
    probed = [("graph", 1, half), ("graph", 2, half), ("graph", 4, half), ("plain", 8, half)]
    assert list(dict.fromkeys(ran)) == probed
    fitted = FittedImage(np.zeros((3, 32, 32), np.float32), Placement(scale_x=1.0, scale_y=1.0))
    picture = Prepared(fitted, 32, 32, 0.0, 0.0)
    for size in (1, 2, 4, 8):
        ran.clear()
        predictor.infer([picture] * size)
        assert ran == [probed.pop(0)]
