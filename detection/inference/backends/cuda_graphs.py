"""A network as CUDA graphs, one for each of a few batch sizes: one launch instead of hundreds.

A small network on a fast accelerator spends its time in launching kernels. Graphs are captured when a model
is loaded, and never while a picture waits.

Shape suffixes: B = images, H W = input pixels.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from detection.clock import synchronised_time
from detection.inference.out_of_memory import is_out_of_memory

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""A batch between two of them is filled up to the larger one, where that is quicker than it is alone."""
RUNS_BEFORE_CAPTURE = 3
TIMED_RUNS = 10

Outputs = tuple[Tensor, ...]
RunNetwork = Callable[[Tensor], Outputs]
"""Takes images on the device, and returns what lies there."""
Now = Callable[[torch.device], float]

logger = logging.getLogger(__name__)


class Graph(Protocol):
    """What was captured, with the memory that it reads and writes."""

    @property
    def images_BCHW(self) -> Tensor: ...

    @property
    def outputs(self) -> Outputs: ...

    def replay(self) -> None:
        """Compute `outputs` from `images_BCHW`, as far as the device has come to it."""


@dataclass(frozen=True, slots=True)
class CapturedGraph:
    """A graph of an accelerator."""

    images_BCHW: Tensor
    outputs: Outputs
    graph: torch.cuda.CUDAGraph

    def replay(self) -> None:
        self.graph.replay()


def capture_graph(run: RunNetwork, images_BCHW: Tensor) -> CapturedGraph:
    """Capture one run of a network on images that lie on an accelerator.

    Raises:
        RuntimeError: the network does something that cannot be captured, or there is not memory enough.
    """
    device = images_BCHW.device
    # The stream as well: in older versions of torch a capture that fails leaves the thread on its own one.
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(RUNS_BEFORE_CAPTURE):  # what is chosen and allocated lazily is not part of a graph
                run(images_BCHW)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile, for the models that serve. Without a stream, that of whoever
        # captured first in this process would be taken, which may be on another device.
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            outputs = run(images_BCHW)
    return CapturedGraph(images_BCHW, outputs, graph)


class GraphedNetwork:
    """Runs a network by graphs where that was measured to be faster, else as it is."""

    def __init__(
        self,
        run: RunNetwork,
        example_1CHW: Tensor,
        *,
        batch_sizes: tuple[int, ...] = BATCH_SIZES,
        capture: Callable[[RunNetwork, Tensor], Graph] = capture_graph,
        now: Now = synchronised_time,
    ) -> None:
        """Capture the network for batches of images that are like the example.

        Args:
            run: the network.
            example_1CHW: on the device, in the precision that the network computes with.
            batch_sizes: in ascending order; those that need more memory than there is are left out.
        """
        self._run, self._now = run, now
        self._graphs: dict[int, Graph] = {}
        self._plain_s: dict[int, float] = {}
        self._replayed_s: dict[int, float] = {}
        self._shape_CHW = example_1CHW.shape[1:]
        # Two replays of one graph use the same memory.
        self._lock = threading.Lock()
        for size in batch_sizes:
            try:
                self._try(size, capture(run, example_1CHW.repeat(size, 1, 1, 1)))
            except RuntimeError as error:
                kind = "memory" if is_out_of_memory(error) else "a network that can be captured"
                logger.info("no graph for batches of %d and more: it needs %s (%s)", size, kind, error)
                break

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """For which there is a graph."""
        return tuple(self._graphs)

    def __call__(self, images_BCHW: Tensor) -> Outputs:
        """Return what the network says of images, which may lie on the CPU; the outputs are the caller's."""
        count = len(images_BCHW)
        graph = self._graph_for(count)
        if graph is None or images_BCHW.shape[1:] != self._shape_CHW:
            return self._run(images_BCHW)
        with self._lock:
            graph.images_BCHW[:count].copy_(images_BCHW)
            graph.replay()
            return tuple(output[:count].clone() for output in graph.outputs)

    def _try(self, size: int, graph: Graph) -> None:
        """Keep a graph that is faster than the network itself."""
        plain_s = self._best_s(lambda: self._run(graph.images_BCHW), graph.images_BCHW.device)
        replayed_s = self._best_s(graph.replay, graph.images_BCHW.device)
        self._plain_s[size], self._replayed_s[size] = plain_s, replayed_s
        logger.info("batches of %d: %.2f ms, by graph %.2f ms", size, 1000 * plain_s, 1000 * replayed_s)
        if replayed_s < plain_s:
            self._graphs[size] = graph

    def _graph_for(self, count: int) -> Graph | None:
        """Return the graph that takes less time for so many images than the network itself."""
        size = next((size for size in self._plain_s if size >= count), 0)
        graph = self._graphs.get(size)
        return graph if graph is not None and self._replayed_s[size] < self._expected_s(count, size) else None

    def _expected_s(self, count: int, size: int) -> float:
        """Return what the network itself takes for so many, between what it took for fewer and for `size`."""
        fewer = max((each for each in self._plain_s if each < size), default=0)
        fewer_s = self._plain_s.get(fewer, 0.0)
        return fewer_s + (self._plain_s[size] - fewer_s) * (count - fewer) / (size - fewer)

    def _best_s(self, work: Callable[[], object], device: torch.device) -> float:
        times = []
        for _ in range(TIMED_RUNS):
            began = self._now(device)
            work()
            times.append(self._now(device) - began)
        return min(times)
