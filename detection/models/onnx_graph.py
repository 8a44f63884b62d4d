"""An ONNX graph as something to look things up in: who makes a value, which numbers are constant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from detection.data.wording import printable, quoted
from detection.errors import WeightsError
from detection.models.weight_files import damage_reported

DecodeError = onnx.serialization.google.protobuf.message.DecodeError  # type: ignore[attr-defined]
"""protobuf is onnx's dependency, not ours."""


class OnnxGraph:
    """A parsed graph. Nothing of it is executed, and no other file is opened for it."""

    def __init__(self, graph: Any) -> None:
        _skip_identities(graph)
        self._producers = {output: node for node in graph.node for output in node.output}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self._constants[node.output[0]] = node.attribute[0].t
        self.inputs = {each.name for each in graph.input} - self._constants.keys()
        self.outputs = [each.name for each in graph.output]
        self.convolutions = [node for node in graph.node if node.op_type == "Conv"]

    @classmethod
    def read(cls, path: Path) -> OnnxGraph:
        """Parse a file.

        Raises:
            WeightsError: it is damaged.
        """
        with damage_reported("ONNX graph", DecodeError):
            return cls(onnx.load(path, load_external_data=False).graph)

    def find_producer(self, value: str) -> Any | None:
        """Return the node that makes `value`; None for inputs and constants."""
        return self._producers.get(value)

    def producer(self, value: str, *op_types: str) -> Any:
        """Return the node that makes `value`; it must be one of these operations."""
        node = self.find_producer(value)
        if node is None or node.op_type not in op_types:
            found = "nothing" if node is None else printable(node.op_type, 60)
            raise WeightsError(
                f"the graph is of no known architecture: {' or '.join(op_types)} was expected, not {found}"
            )
        return node

    @staticmethod
    def options(node: Any) -> dict[str, Any]:
        """Return the attributes of a node by name; texts are bytes."""
        return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}

    def shape(self, value: str) -> tuple[int, ...]:
        """Return the shape of a constant."""
        return tuple(self._constant(value).dims)

    def numbers(self, value: str) -> Tensor:
        """Return a constant as a float32 tensor."""
        array = self._array(value)
        if not np.issubdtype(array.dtype, np.floating) and array.dtype.name != "bfloat16":
            raise WeightsError(f"the weight {quoted(value)} of the graph is quantized, not floating point")
        return torch.from_numpy(array.astype(np.float32))

    def floats(self, value: str) -> list[float]:
        """Return a constant as numbers of any kind."""
        return [float(each) for each in self._array(value).reshape(-1)]

    def integers(self, value: str) -> list[int]:
        """Return a constant as whole numbers."""
        return [int(each) for each in self._array(value).reshape(-1)]

    def convolutions_before(self, values: list[str]) -> Iterator[Any]:
        """Yield the last convolutions before `values`, first inputs first."""
        waiting, seen = list(reversed(values)), set()
        while waiting:
            value = waiting.pop()
            node = self.find_producer(value)
            if node is None or value in seen:
                continue
            seen.add(value)
            if node.op_type == "Conv":
                yield node
            else:
                waiting.extend(reversed(node.input))

    def _constant(self, value: str) -> Any:
        try:
            return self._constants[value]
        except KeyError:
            problem = (
                f"the graph computes {quoted(value)} instead of storing it; export it with a fixed input size"
                " and its weights as constants"
            )
            raise WeightsError(problem) from None

    def _array(self, value: str) -> np.ndarray[Any, Any]:
        tensor = self._constant(value)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise WeightsError("the graph keeps its weights in another file; save it as one file")
        with damage_reported("ONNX graph"):
            return np.array(numpy_helper.to_array(tensor))


def _skip_identities(graph: Any) -> None:
    """Let every node take what an Identity passes on, as exporters write weights that are alike."""
    passed_on = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    for node in graph.node:
        for place, value in enumerate(node.input):
            seen = set()
            while value in passed_on and value not in seen:
                seen.add(value)
                value = passed_on[value]
            node.input[place] = value
