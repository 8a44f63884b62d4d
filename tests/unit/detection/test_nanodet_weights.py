"""Importing NanoDet-Plus: the dresses that its trainer leaves weights in, and graphs that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from detection.architectures import ARCHITECTURES
from detection.deploy.export import export_onnx
from detection.devices import CPU
from detection.errors import WeightsError
from detection.families.nanodet_plus import NanoDetConfig
from detection.models import create_model, create_served_model
from detection.models.nanodet_plus import BOX_LOGITS, BOXES_KEPT
from detection.models.weights import read_weights
from detection.training.distributed import Ranks
from detection.training.session import load_start, open_session
from tests.small_job import small_job

State = dict[str, Tensor]
NAME = "nanodet-plus-m"


@pytest.fixture(scope="module")
def states() -> tuple[State, State]:
    """The entries of two networks in training: the raw one and its average."""
    torch.manual_seed(0)
    raw, averaged = (create_model(NAME, num_classes=2).state_dict() for _ in range(2))
    return raw, averaged


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def served(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("aux_")}


Dress = Callable[[State, State], Any]
FACTS = {
    "epoch": 3,
    "global_step": np.int64(7),
    "callbacks": {"best": np.float64(0.3), "score": np.float32(1)},
}
DRESSES: dict[str, tuple[Dress, str, bool, str]] = {
    "trainer": (
        lambda raw, averaged: {
            **FACTS,
            "state_dict": {**prefixed("model.", raw), **prefixed("avg_model.", averaged)},
        },
        "averaged",
        True,
        "the 887 tensors of 'avg_model.' were taken, 887 others left",
    ),
    "without an average": (
        lambda raw, averaged: {**FACTS, "state_dict": prefixed("model.", raw)},
        "raw",
        True,
        "242 tensors serve training only",
    ),
    "an average that is not whole": (
        lambda raw, averaged: {
            "state_dict": {
                **prefixed("model.", raw),
                "avg_model.head.gfl_cls.0.bias": averaged["head.gfl_cls.0.bias"],
            }
        },
        "raw",
        True,
        "tensors of 'model.' were taken, 1 others left",
    ),
    "an average of the same numbers": (
        lambda raw, averaged: {"state_dict": {**prefixed("model.", raw), **prefixed("avg_model.", raw)}},
        "raw",
        True,
        "tensors of 'avg_model.' were taken",
    ),
    "without the auxiliary branch": (
        lambda raw, averaged: {"state_dict": prefixed("model.", served(raw))},
        "raw",
        False,
        "",
    ),
    "with half of the auxiliary branch": (
        lambda raw, averaged: {**served(raw), "aux_head.gfl_cls.bias": raw["aux_head.gfl_cls.bias"]},
        "raw",
        False,
        "1 tensors have no place in the model, for example 'aux_head.gfl_cls.bias'",
    ),
    "plain": (lambda raw, averaged: served(raw), "raw", False, ""),
    "parallel": (
        lambda raw, averaged: {"state_dict": prefixed("model.module.", raw)},
        "raw",
        True,
        "prefixes of a parallel or compiled wrapper were removed",
    ),
}


@pytest.mark.parametrize("name", DRESSES)
def test_a_checkpoint_is_known_in_any_dress(tmp_path: Path, states: tuple[State, State], name: str) -> None:
    dress, copy, auxiliary, note = DRESSES[name]
    torch.save(dress(*states), tmp_path / "weights")
    weights = read_weights(tmp_path / "weights")
    expected = states[0] if copy == "raw" else states[1]
    assert (weights.architecture, weights.num_classes, weights.folded) == (NAME, 2, False)
    assert weights.state.keys() == served(expected).keys()
    assert bool(weights.training_state) == auxiliary
    assert all(
        torch.equal(value, expected[key])
        for key, value in (*weights.state.items(), *weights.training_state.items())
    )
    assert any(note in line for line in weights.report)
    assert len(weights.report) == 1 + bool(note) + (auxiliary and "serve training" not in note)


def test_both_sizes_are_told_by_their_shapes(tmp_path: Path) -> None:
    torch.save(create_served_model("nanodet-plus-m-1.5x", num_classes=5).state_dict(), tmp_path / "weights")
    weights = read_weights(tmp_path / "weights")
    assert (weights.architecture, weights.num_classes) == ("nanodet-plus-m-1.5x", 5)


def test_what_is_missing_is_named(tmp_path: Path, states: tuple[State, State]) -> None:
    state = served(states[0])
    del state["fpn.downsamples.0.dwnorm.weight"]
    torch.save({"state_dict": prefixed("model.", state)}, tmp_path / "weights")
    with pytest.raises(
        WeightsError, match=r"nearest to nanodet-plus-m, but 1 of .* 'fpn.downsamples.0.dwnorm"
    ):
        read_weights(tmp_path / "weights")


def test_folded_weights_become_a_model_with_the_same_answers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_served_model(NAME, num_classes=2)
    pictures = torch.randn(1, 3, 64, 64)
    expected = model.predict(pictures)
    model.fuse()
    torch.save(model.state_dict(), tmp_path / "weights")
    weights = read_weights(tmp_path / "weights")
    assert weights.folded
    again = create_served_model(NAME, num_classes=2)
    again.load_state_dict(weights.state)
    for found, wanted in zip(again.predict(pictures), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_a_training_says_in_a_few_lines_what_it_begins_with(
    tmp_path: Path, states: tuple[State, State], auxiliary: bool
) -> None:
    raw, _ = states
    torch.save(raw if auxiliary else served(raw), tmp_path / "weights")
    detector, lines = create_model(NAME, num_classes=3), list[str]()
    load_start(
        detector,
        tmp_path / "weights",
        NanoDetConfig(architecture="nanodet-plus-m", init="model-7"),
        log=lines.append,
    )
    state = detector.state_dict()
    neck = raw if auxiliary else {f"aux_{name}": value for name, value in raw.items()}
    assert all(torch.equal(state[name], neck[name]) for name in state if name.startswith("aux_fpn."))
    copied = sum(name.startswith("aux_fpn.") for name in state)
    assert (f"the auxiliary neck starts as a copy of the neck ({copied} weights)" in lines) != auxiliary
    assert any(line.startswith("the auxiliary head starts at random") for line in lines) != auxiliary
    last = {f"head.gfl_cls.{level}.{kind}" for level in range(4) for kind in ("weight", "bias")}
    assert f"{BOXES_KEPT} (8 weights)" in lines
    assert all(torch.equal(state[name][-BOX_LOGITS:], raw[name][-BOX_LOGITS:]) for name in last)
    assert not any(torch.equal(state[name][:2], raw[name][:2]) for name in last if "weight" in name)
    at_random = lines[-1].removeprefix("weights that start at random: ")
    assert (at_random == "aux_head.gfl_cls.bias, aux_head.gfl_cls.weight") == auxiliary


def test_a_training_says_how_much_of_the_network_is_never_published(tmp_path: Path) -> None:
    lines: list[str] = []
    job = small_job(tmp_path, family="nanodet-plus")
    optimisation, _ = open_session(job, None, Ranks(device=CPU), log=lines.append)
    served = create_served_model(NAME, num_classes=2)
    whole, rest = (sum(each.numel() for each in net.parameters()) for net in (optimisation.detector, served))
    assert f"{whole:,} parameters" in lines[-2]
    assert lines[-1].startswith(f"{whole - rest:,} of the parameters guide the training only")


@pytest.fixture(scope="module")
def graph() -> bytes:
    """Our own export."""
    detector = create_served_model(NAME, num_classes=2)
    return export_onnx(detector, ARCHITECTURES[NAME].record(classes=("a", "b"), input_size_hw=(64, 64)))


def first(proto: onnx.ModelProto, op_type: str) -> Any:
    return next(node for node in proto.graph.node if node.op_type == op_type)


def attribute(node: Any, name: str) -> Any:
    return next(each for each in node.attribute if each.name == name)


def normalise_the_input(proto: onnx.ModelProto) -> None:
    first(proto, "Conv").input[0] = "scaled"
    proto.graph.node.append(onnx.helper.make_node("Neg", ["images"], ["scaled"]))


def work_on_the_other_half(proto: onnx.ModelProto) -> None:
    split = first(proto, "Split")
    split.output[:] = [split.output[1], split.output[0]]


def shuffle_otherwise(proto: onnx.ModelProto) -> None:
    attribute(first(proto, "Transpose"), "perm").ints[:] = [0, 1, 2, 3, 4]


def leak_less(proto: onnx.ModelProto) -> None:
    attribute(first(proto, "LeakyRelu"), "alpha").f = 0.01


def enlarge_otherwise(proto: onnx.ModelProto) -> None:
    attribute(first(proto, "Resize"), "mode").s = b"nearest"


def enlarge_from_the_corners(proto: onnx.ModelProto) -> None:
    attribute(first(proto, "Resize"), "coordinate_transformation_mode").s = b"align_corners"


def pool_over_more(proto: onnx.ModelProto) -> None:
    pool = first(proto, "MaxPool")
    attribute(pool, "kernel_shape").ints[:] = [5, 5]
    attribute(pool, "pads").ints[:] = [2, 2, 2, 2]


def join_rows(proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        if node.op_type == "Concat" and len(node.input) == 2:
            attribute(node, "axis").i = 2


def split_rows(proto: onnx.ModelProto) -> None:
    attribute(first(proto, "Split"), "axis").i = 2


def swap_the_branches(proto: onnx.ModelProto) -> None:
    concat = first(proto, "Concat")
    concat.input[:] = concat.input[::-1]


def change_a_stride(proto: onnx.ModelProto) -> None:
    attribute(first(proto, "Conv"), "strides").ints[:] = [1, 1]


def forget_a_level(proto: onnx.ModelProto) -> None:
    levels = next(node for node in proto.graph.node if node.op_type == "Concat" and len(node.input) == 4)
    del levels.input[3]


def run_in_a_circle(proto: onnx.ModelProto) -> None:
    pool = first(proto, "MaxPool")
    pool.input[0] = pool.output[0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (normalise_the_input, "something is done to the picture"),
        (work_on_the_other_half, "splits channels in another way"),
        (shuffle_otherwise, "interleaves channels in another way"),
        (leak_less, "a leaky ReLU has the slope 0.01"),
        (enlarge_otherwise, "another way than linear by 2"),
        (enlarge_from_the_corners, "another way than linear by 2"),
        (pool_over_more, "a maximum is not over 3 x 3 cells"),
        (join_rows, "joins something else than channels"),
        (split_rows, "splits channels in another way"),
        (swap_the_branches, "has another shape|start apart"),
        (change_a_stride, "has another shape"),
        (forget_a_level, "ends in 3 convolutions, not in 9 .YOLOX. or 4 .NanoDet-Plus."),
        (run_in_a_circle, "LeakyRelu was expected, not MaxPool"),
    ],
)
def test_a_graph_that_is_no_plain_nanodet_is_refused(
    tmp_path: Path, graph: bytes, change: Callable[[onnx.ModelProto], None], problem: str
) -> None:
    proto = onnx.load_from_string(graph)
    change(proto)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(WeightsError, match=problem):
        read_weights(tmp_path / "model.onnx")


def split_by_slices(proto: onnx.ModelProto, *, start: str) -> None:
    """Write the first split as two slices, the second of which begins at a computed channel."""
    split = first(proto, "Split")
    for name, number in (("zero", 0), ("one", 1), ("half", 58), ("all", 116)):
        proto.graph.initializer.append(numpy_helper.from_array(np.array([number]), name))
    for (begin, end), value in zip((("zero", "half"), (start, "all")), split.output, strict=True):
        slices = [split.input[0], begin, end, "one"]
        proto.graph.node.append(onnx.helper.make_node("Slice", slices, [value]))
    proto.graph.node.remove(split)


def add_up(proto: onnx.ModelProto, times: int) -> None:
    """Compute 29 x 2 ** times, each time from one value taken twice."""
    proto.graph.initializer.append(numpy_helper.from_array(np.array([29]), "sum-0"))
    for each in range(times):
        sums = [f"sum-{each}"] * 2
        proto.graph.node.append(onnx.helper.make_node("Add", sums, [f"sum-{each + 1}"]))


def test_channels_may_be_halved_by_a_little_arithmetic(tmp_path: Path, graph: bytes) -> None:
    proto = onnx.load_from_string(graph)
    add_up(proto, 1)
    split_by_slices(proto, start="sum-1")
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    assert read_weights(tmp_path / "model.onnx").architecture == NAME


def test_arithmetic_without_an_end_is_refused_at_once(tmp_path: Path, graph: bytes) -> None:
    proto = onnx.load_from_string(graph)
    add_up(proto, 60)
    split_by_slices(proto, start="sum-60")
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(WeightsError, match="too much arithmetic"):
        read_weights(tmp_path / "model.onnx")


def test_what_an_identity_passes_on_is_the_weight(tmp_path: Path, graph: bytes) -> None:
    proto = onnx.load_from_string(graph)
    conv = first(proto, "Conv")
    proto.graph.node.append(onnx.helper.make_node("Identity", [conv.input[1]], ["passed on"]))
    conv.input[1] = "passed on"
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    assert read_weights(tmp_path / "model.onnx").architecture == NAME


def test_a_convolution_without_weights_is_a_damaged_graph(tmp_path: Path, graph: bytes) -> None:
    proto = onnx.load_from_string(graph)
    del [node for node in proto.graph.node if node.op_type == "Conv"][-1].input[1:]
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(WeightsError, match="damaged"):
        read_weights(tmp_path / "model.onnx")


@pytest.mark.reference
def test_the_originals_checkpoint_and_graph_are_the_same_network(reference: Path) -> None:
    """Its graph has no names of weights, and halves channels by arithmetic on their number."""
    answers = []
    for name in ("nanodet-plus-m-416-coco.ckpt", "nanodet-plus-m-416-coco.onnx"):
        weights = read_weights(reference / "weights" / name)
        assert (weights.architecture, weights.num_classes) == (NAME, 80)
        assert weights.folded == name.endswith(".onnx")
        detector = create_served_model(NAME, num_classes=80)
        detector.load_state_dict(weights.state)
        with torch.no_grad():
            answers.append(detector(torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))))
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-3, atol=1e-3)
