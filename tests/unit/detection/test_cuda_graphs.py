"""Graphs of a network: for a few sizes, where they are faster, and nobody's answer is overwritten.

What is captured stands in for a CUDA graph: it computes on the CPU, from and into memory of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from detection.inference.backends.cuda_graphs import GraphedNetwork, Outputs, RunNetwork

EXAMPLE = torch.zeros(1, 3, 4, 4)


@dataclass
class Device:
    """A network that adds one, a clock, and graphs that take part of the network's time."""

    graph_s: float = 0.5
    picture_s: float = 0.0
    """What each picture takes, by graph or not."""
    slow_graph: int = 0
    """The graph for so many gains nothing."""
    largest: int = 100
    plain_runs: list[int] = field(default_factory=list)
    replays: list[int] = field(default_factory=list)
    time: float = 0.0

    def run(self, images: Tensor) -> Outputs:
        self.plain_runs.append(len(images))
        self.time += 1.0 + self.picture_s * len(images)
        return (images + 1, images.flatten(1).sum(dim=1))

    def capture(self, run: RunNetwork, images: Tensor) -> Recorded:
        if len(images) > self.largest:
            raise torch.OutOfMemoryError("no memory")
        return Recorded(images, tuple(torch.empty_like(each) for each in run(images)), self)

    def network(self, *sizes: int) -> GraphedNetwork:
        network = GraphedNetwork(
            self.run, EXAMPLE, batch_sizes=sizes, capture=self.capture, now=lambda device: self.time
        )
        self.plain_runs.clear()
        self.replays.clear()
        return network


@dataclass
class Recorded:
    images_BCHW: Tensor
    outputs: Outputs
    device: Device

    def replay(self) -> None:
        self.device.replays.append(len(self.images_BCHW))
        count = len(self.images_BCHW)
        own_s = 1.0 if count == self.device.slow_graph else self.device.graph_s
        self.device.time += own_s + self.device.picture_s * count
        self.outputs[0].copy_(self.images_BCHW + 1)
        self.outputs[1].copy_(self.images_BCHW.flatten(1).sum(dim=1))


def images(count: int, value: float = 2.0, side: int = 4) -> Tensor:
    return torch.full((count, 3, side, side), value)


@pytest.mark.parametrize(("count", "replayed"), [(1, 1), (2, 2), (3, 4), (4, 4)])
def test_a_batch_is_filled_up_to_the_next_graph(count: int, replayed: int) -> None:
    device = Device()
    network = device.network(1, 2, 4)
    seen, sums = network(images(count))
    assert (device.replays, device.plain_runs) == ([replayed], [])
    torch.testing.assert_close(seen, images(count) + 1)
    torch.testing.assert_close(sums, torch.full((count,), 96.0))


def test_what_no_graph_is_for_runs_as_it_is() -> None:
    device = Device()
    network = device.network(1, 2)
    assert len(network(images(3))[0]) == 3
    assert network(images(1, side=8))[0].shape == (1, 3, 8, 8)
    assert (device.plain_runs, device.replays) == ([3, 1], [])


def test_answers_stay_when_the_graph_runs_again() -> None:
    network = Device().network(1)
    first, second = network(images(1, 2.0)), network(images(1, 5.0))
    assert (float(first[0].max()), float(second[0].max())) == (3.0, 6.0)


def test_a_graph_that_is_no_faster_is_not_used() -> None:
    assert Device(graph_s=1.0).network(1, 2).batch_sizes == ()
    assert Device(graph_s=0.9).network(1, 2).batch_sizes == (1, 2)


def test_a_batch_is_not_filled_up_where_that_takes_longer() -> None:
    """Three pictures take 4 alone, and 4.5 as the four of a graph; seven take 8, and 8.5 as eight."""
    device = Device(picture_s=1.0)
    network = device.network(1, 2, 4, 8)
    for count in (3, 7, 4, 8):
        network(images(count))
    assert (device.plain_runs, device.replays) == ([3, 7], [4, 8])


def test_a_batch_is_filled_up_to_the_next_size_only() -> None:
    device = Device(slow_graph=4)
    network = device.network(2, 4, 8)
    assert network.batch_sizes == (2, 8)
    network(images(3))
    network(images(5))
    assert (device.plain_runs, device.replays) == ([3], [8])


def test_graphs_end_where_the_memory_does() -> None:
    assert Device(largest=4).network(1, 2, 4, 8, 16).batch_sizes == (1, 2, 4)


def test_a_network_that_cannot_be_captured_runs_as_it_is() -> None:
    def refuse(run: RunNetwork, images: Tensor) -> Recorded:
        raise RuntimeError("operation not permitted when stream is capturing")

    device = Device()
    network = GraphedNetwork(device.run, EXAMPLE, capture=refuse)
    assert network.batch_sizes == ()
    torch.testing.assert_close(network(images(1))[0], images(1) + 1)
