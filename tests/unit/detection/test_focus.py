"""The merged graph computes the same; what is not surely Focus stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from detection.inference.backends.focus import merge_focus

END = 2**63 - 1
ORDER = ((0, 0), (1, 0), (0, 1), (1, 1))
"""YOLOX's: the rows of the squares change first."""


def graph_of(
    folder: Path,
    *,
    offsets_yx: tuple[tuple[int, int], ...] = ORDER,
    kernel: int = 3,
    step: int = 2,
    end: int = END,
    axis: int = 1,
    strides: int = 1,
    also_shown: bool = False,
) -> Path:
    """Write a graph of slices, a concatenation and a convolution with a bias."""
    rng = np.random.default_rng(7)
    nodes, numbers, parts = [], {}, []

    def number(name: str, value: object) -> str:
        numbers[name] = numpy_helper.from_array(np.array(value), name)
        return name

    def slice_of(source: str, result: str, start: int, on: int) -> None:
        given = [number(f"{result}.{key}", [value]) for key, value in
                 (("start", start), ("end", end), ("axis", on), ("step", step))]  # fmt: skip
        nodes.append(helper.make_node("Slice", [source, *given], [result]))

    for place, (y, x) in enumerate(offsets_yx):
        slice_of("images", f"rows{place}", y, 2)
        slice_of(f"rows{place}", f"part{place}", x, 3)
        parts.append(f"part{place}")
    nodes.append(helper.make_node("Concat", parts, ["squares"], axis=axis))
    channels = 3 * len(offsets_yx) if axis == 1 else 3
    weights = rng.standard_normal((5, channels, kernel, kernel)).astype(np.float32)
    number("weights", weights)
    number("bias", rng.standard_normal(5).astype(np.float32))
    nodes.append(
        helper.make_node(
            "Conv",
            ["squares", "weights", "bias"],
            ["sums"],
            kernel_shape=[kernel] * 2,
            pads=[kernel // 2] * 4,
            strides=[strides] * 2,
        )
    )
    free = ["B", "C", "H", "W"]
    shown = ["sums", "squares"] if also_shown else ["sums"]
    graph = helper.make_graph(
        nodes,
        "focus",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, free)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, free) for name in shown],
        list(numbers.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    file = folder / "model.onnx"
    onnx.save(model, file)
    return file


def outputs_of(graph: Path | bytes, images: np.ndarray) -> list[np.ndarray]:
    content = graph if isinstance(graph, bytes) else graph.read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [np.asarray(each) for each in session.run(None, {"images": images})]


def check_same(file: Path, shape: tuple[int, ...] = (1, 3, 8, 8)) -> None:
    """Check that the graph is merged, and computes what it did."""
    merged = merge_focus(file)
    assert isinstance(merged, bytes)
    images = np.random.default_rng(3).random(shape, np.float32)
    for found, expected in zip(outputs_of(merged, images), outputs_of(file, images), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("offsets_yx", [ORDER, tuple(reversed(ORDER)), ((0, 0), (0, 1), (1, 0), (1, 1))])
def test_the_merged_graph_computes_the_same(
    tmp_path: Path, kernel: int, offsets_yx: tuple[tuple[int, int], ...]
) -> None:
    check_same(graph_of(tmp_path, kernel=kernel, offsets_yx=offsets_yx), (2, 3, 12, 20))


def test_nothing_is_left_of_what_was_merged(tmp_path: Path) -> None:
    merged = merge_focus(graph_of(tmp_path))
    assert isinstance(merged, bytes)
    graph = onnx.load_from_string(merged).graph
    assert [node.op_type for node in graph.node] == ["Conv"]
    assert sorted(each.name for each in graph.initializer) == ["bias", "weights/of_squares"]


def test_what_something_else_needs_is_kept(tmp_path: Path) -> None:
    file = graph_of(tmp_path, also_shown=True)
    check_same(file)


@pytest.mark.parametrize(
    "other",
    [
        {"step": 1},
        {"step": 3},
        {"end": 8},
        {"axis": 2},
        {"strides": 2},
        {"offsets_yx": ORDER[:2]},
        {"offsets_yx": ((0, 0), (1, 0), (0, 1), (2, 1))},
        {"offsets_yx": ((0, 0),) * 4},
    ],
    ids=str,
)
def test_what_is_no_focus_stays_as_it_is(tmp_path: Path, other: dict[str, Any]) -> None:
    file = graph_of(tmp_path, **other)
    assert merge_focus(file) == file


def changed(file: Path, change: Callable[[onnx.GraphProto], object]) -> Path:
    """Write what has become of a graph over it."""
    model = onnx.load(file)
    change(model.graph)
    onnx.save(model, file)
    return file


def number(name: str, value: object) -> TensorProto:
    return numpy_helper.from_array(np.array(value), name)


def replace(graph: onnx.GraphProto, name: str, value: object) -> None:
    next(each for each in graph.initializer if each.name == name).CopyFrom(number(name, value))


def look_within(graph: onnx.GraphProto) -> None:
    """Let a branch take the concatenation, its numbers and a slice from outside."""
    made = helper.make_tensor_value_info("made", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Conv", ["squares", "weights", "bias"], ["again"], pads=[1] * 4),
        helper.make_node("Identity", ["again"], ["made"]),
    ]
    branch = helper.make_graph(nodes, "branch", [], [made])
    graph.initializer.append(number("yes", True))
    graph.node.append(helper.make_node("If", ["yes"], ["seen"], then_branch=branch, else_branch=branch))
    graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, ["B", "C", "H", "W"]))


def test_what_a_branch_takes_from_outside_is_kept(tmp_path: Path) -> None:
    file = changed(graph_of(tmp_path), look_within)
    check_same(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: graph.input.append(
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, (5, 12, 3, 3))
        ),
        lambda graph: graph.initializer.append(number("weights/of_squares", [1.0])),
        lambda graph: replace(graph, "weights", np.zeros((5, 12, 3, 3, 3), np.float32)),
        lambda graph: replace(graph, "weights", np.zeros((5, 10, 3, 3), np.float32)),
        lambda graph: replace(graph, "rows0.start", [0, 0]),
        lambda graph: graph.node[-1].ClearField("input"),
        lambda graph: setattr(graph.node[-1], "domain", "of.somebody"),
    ],
    ids=["given", "taken", "volumes", "no quarters", "more starts than axes", "no input", "other domain"],
)
def test_a_strange_graph_stays_as_it_is(tmp_path: Path, change: Callable[[onnx.GraphProto], object]) -> None:
    """Whether it can be served is told by who loads it."""
    file = changed(graph_of(tmp_path), change)
    assert merge_focus(file) == file
