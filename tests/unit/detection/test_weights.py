"""Importing weights: what is accepted in which dress, what is refused, and that nothing in a file is run."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn

from detection.deploy.export import export_onnx
from detection.errors import WeightsError
from detection.model_record import ModelRecord
from detection.models import create_model, weight_files
from detection.models.detector import Detector
from detection.models.weights import read_weights

NUM_CLASSES = 2
State = dict[str, Tensor]


def trained_looking(name: str = "yolox-nano", num_classes: int = NUM_CLASSES) -> Detector:
    """Return a detector in eval mode whose batch norms do something."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=num_classes).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.8, 1.6)
            nn.init.uniform_(layer.bias, -0.3, 0.3)
            assert layer.running_var is not None
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return model


@pytest.fixture(scope="module")
def detector() -> Detector:
    return trained_looking()


@pytest.fixture(scope="module")
def graph(detector: Detector) -> bytes:
    """Our own export of the detector."""
    return export_onnx(
        detector, ModelRecord(architecture="yolox-nano", classes=("a", "b"), input_size_hw=(64, 64))
    )


def outputs_of(state: State, name: str = "yolox-nano", num_classes: int = NUM_CLASSES) -> Tensor:
    model = create_model(name, num_classes=num_classes).eval()
    model.load_state_dict(state)
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        return model(pictures)


@pytest.mark.parametrize(
    "dress",
    [
        lambda state: {"model": state, "start_epoch": 3, "best_ap": np.float64(0.5), "epoch": np.int64(4)},
        lambda state: {"state_dict": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        lambda state: state,
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
        lambda state: {"model": {name: value for name, value in state.items() if "num_batches" not in name}},
        lambda state: {
            name: value if "num_batches" not in name else torch.tensor([1, 2])
            for name, value in state.items()
        },
    ],
    ids=["model", "state_dict", "plain", "parallel", "compiled", "no counters", "odd counters"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_checkpoint_is_known_in_any_dress(
    tmp_path: Path, detector: Detector, dress: Callable[[State], Any], zipped: bool
) -> None:
    path = tmp_path / "named-like-nothing.bin"
    torch.save(dress(detector.state_dict()), path, _use_new_zipfile_serialization=zipped)
    weights = read_weights(path)
    assert (weights.architecture, weights.num_classes, weights.folded) == ("yolox-nano", NUM_CLASSES, False)
    assert torch.equal(outputs_of(weights.state), outputs_of(detector.state_dict()))


def test_safetensors_and_half_precision(tmp_path: Path, detector: Detector) -> None:
    half = {
        name: each.half() if each.is_floating_point() else each
        for name, each in detector.state_dict().items()
    }
    save_file({**half, "extra": torch.zeros(3)}, tmp_path / "weights")
    weights = read_weights(tmp_path / "weights")
    assert {value.dtype for value in weights.state.values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(
        outputs_of(weights.state), outputs_of(detector.state_dict()), rtol=0.1, atol=0.1
    )
    assert "1 tensors have no place in the model, for example 'extra'" in weights.report


def test_fused_weights_become_a_model_with_the_same_answers(tmp_path: Path) -> None:
    model = trained_looking()
    expected = outputs_of(model.state_dict())
    model.fuse()
    save_file(model.state_dict(), tmp_path / "weights")
    weights = read_weights(tmp_path / "weights")
    assert weights.folded
    torch.testing.assert_close(outputs_of(weights.state), expected, rtol=1e-4, atol=1e-4)
    again = create_model("yolox-nano", num_classes=NUM_CLASSES).eval()
    again.load_state_dict(weights.state)
    again.fuse()
    for name, value in again.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize("name", ["yolox-tiny", "yolox-s"])
def test_the_size_is_told_by_the_shapes(tmp_path: Path, name: str) -> None:
    torch.save(create_model(name, num_classes=1).state_dict(), tmp_path / "weights")
    weights = read_weights(tmp_path / "weights")
    assert (weights.architecture, weights.num_classes) == (name, 1)


def test_our_own_graph_is_read_back(tmp_path: Path, detector: Detector, graph: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graph)
    weights = read_weights(path)
    assert (weights.architecture, weights.num_classes, weights.folded) == ("yolox-nano", NUM_CLASSES, True)
    torch.testing.assert_close(
        outputs_of(weights.state), outputs_of(detector.state_dict()), rtol=1e-4, atol=1e-4
    )


def first(proto: onnx.ModelProto, op_type: str) -> Any:
    return next(node for node in proto.graph.node if node.op_type == op_type)


def convolution(proto: onnx.ModelProto, number: int) -> Any:
    return [node for node in proto.graph.node if node.op_type == "Conv"][number]


def constant(proto: onnx.ModelProto, name: str) -> Any:
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


def normalise_the_input(proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        node.input[:] = ["scaled" if value == "images" else value for value in node.input]
    proto.graph.node.append(onnx.helper.make_node("Neg", ["images"], ["scaled"]))


def reorder_the_stem(proto: onnx.ModelProto) -> None:
    concat = first(proto, "Concat")
    concat.input[:] = [concat.input[0], concat.input[2], concat.input[1], concat.input[3]]


def swap_the_branches(proto: onnx.ModelProto) -> None:
    concat = [node for node in proto.graph.node if node.op_type == "Concat"][1]
    concat.input[:] = concat.input[::-1]


def change_a_stride(proto: onnx.ModelProto) -> None:
    attributes = {each.name: each for each in convolution(proto, 5).attribute}
    attributes["strides"].ints[:] = [2, 2]


def enlarge_from_the_corners(proto: onnx.ModelProto) -> None:
    resize = first(proto, "Resize")
    where = next(each for each in resize.attribute if each.name == "coordinate_transformation_mode")
    where.s = b"align_corners"


def pool_over_less(proto: onnx.ModelProto) -> None:
    for each in first(proto, "MaxPool").attribute:
        if each.name in ("kernel_shape", "pads"):
            each.ints[:] = [3, 3] if each.name == "kernel_shape" else [1, 1, 1, 1]


def change_the_activation(proto: onnx.ModelProto) -> None:
    first(proto, "Sigmoid").op_type = "HardSigmoid"


def forget_a_prediction(proto: onnx.ModelProto) -> None:
    concat = next(
        node for node in reversed(proto.graph.node) if node.op_type == "Concat" and len(node.input) == 3
    )
    del concat.input[2]


def store_a_weight_elsewhere(proto: onnx.ModelProto) -> None:
    tensor = constant(proto, convolution(proto, 3).input[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def quantize_a_weight(proto: onnx.ModelProto) -> None:
    tensor = constant(proto, convolution(proto, 3).input[1])
    name, dims = tensor.name, tuple(tensor.dims)
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(dims, dtype=np.int8), name))


def compute_a_weight(proto: onnx.ModelProto) -> None:
    node = convolution(proto, 3)
    proto.graph.node.append(onnx.helper.make_node("Neg", [node.input[1]], ["computed"]))
    node.input[1] = "computed"


def cut_a_weight_short(proto: onnx.ModelProto) -> None:
    tensor = constant(proto, convolution(proto, 3).input[1])
    tensor.raw_data = tensor.raw_data[:-4]


def spoil_a_weight(proto: onnx.ModelProto) -> None:
    tensor = constant(proto, convolution(proto, 3).input[1])
    values = np.array(numpy_helper.to_array(tensor))
    values.flat[0] = np.nan
    tensor.raw_data = values.tobytes()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (normalise_the_input, "Slice was expected, not Neg"),
        (reorder_the_stem, "another order"),
        (swap_the_branches, "start apart|has another shape|was expected"),
        (change_a_stride, "has another shape"),
        (enlarge_from_the_corners, "another way than nearest by 2"),
        (pool_over_less, "a maximum is over 3 cells where 5 belong"),
        (change_the_activation, r"x \* sigmoid"),
        (forget_a_prediction, "ends in"),
        (store_a_weight_elsewhere, "in another file"),
        (quantize_a_weight, "quantized"),
        (compute_a_weight, "computes 'computed' instead of storing it"),
        (cut_a_weight_short, "damaged"),
        (spoil_a_weight, "not finite"),
    ],
)
def test_a_graph_that_is_no_plain_yolox_is_refused(
    tmp_path: Path, graph: bytes, change: Callable[[onnx.ModelProto], None], problem: str
) -> None:
    proto = onnx.load_from_string(graph)
    change(proto)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(WeightsError, match=problem):
        read_weights(path)


class Gadget:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_wants_to_run_code_is_refused_and_runs_nothing(
    tmp_path: Path, detector: Detector, zipped: bool
) -> None:
    proof, path = tmp_path / "proof", tmp_path / "weights.pth"
    content = {"model": detector.state_dict(), "callbacks": Gadget(f"touch {proof}")}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="needs code to be opened") as caught:
        read_weights(path)
    assert not proof.exists()
    assert ("system" in str(caught.value)) == zipped


class ForgedType:
    """A NumPy type whose pickle state says something about memory that is not true."""

    def __init__(self, code: str, state: tuple[object, ...]) -> None:
        self.code, self.state = code, state

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...], tuple[object, ...]]:
        return np.dtype, (self.code, False, True), self.state


class ForgedNumber:
    """A NumPy number of such a type."""

    def __init__(self, kind: ForgedType, content: object) -> None:
        self.kind, self.content = kind, content

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return np._core.multiarray.scalar, (self.kind, self.content)  # type: ignore[attr-defined]


IS_POINTER, NEEDS_INIT, LIST_PICKLE = 4, 8, 2
FORGED_STATES = [
    *((3, "<", None, None, None, -1, -1, flags) for flags in (IS_POINTER, LIST_PICKLE, NEEDS_INIT, 63, -1)),
    (3, "<", None, None, None, 10**6, 1, 0),
    (3, "<", ("f8", (10**6,)), None, None, 8 * 10**6, 1, 0),
    (3, "<", None, ("a",), {"a": ("f8", 10**9)}, 10**9, 1, 0),
]


@pytest.mark.parametrize("state", FORGED_STATES, ids=str)
@pytest.mark.parametrize("content", [b"12345678", "an object, whose address nobody should learn"])
@pytest.mark.parametrize("zipped", [True, False])
def test_forged_numpy_numbers_reach_no_numpy(
    tmp_path: Path, detector: Detector, state: tuple[object, ...], content: object, zipped: bool
) -> None:
    path = tmp_path / "weights.pth"
    forged = {"model": detector.state_dict(), "best_ap": ForgedNumber(ForgedType("f8", state), content)}
    torch.save(forged, path, _use_new_zipfile_serialization=zipped)
    loaded = weight_files._load_numbers(path)
    assert isinstance(loaded, dict)
    assert type(loaded["best_ap"]) is weight_files.Forgotten
    assert vars(loaded["best_ap"]) == {}
    assert read_weights(path).architecture == "yolox-nano"


@pytest.mark.parametrize("kind", ["V8", "O", "U4", "M8[s]"])
def test_other_numpy_types_are_forgotten_like_numbers(tmp_path: Path, detector: Detector, kind: str) -> None:
    path = tmp_path / "weights.pth"
    forged = ForgedNumber(ForgedType(kind, (3, "|", None, None, None, 8, 1, 63)), b"AAAAAAAA")
    torch.save({"model": detector.state_dict(), "best_ap": forged}, path)
    assert read_weights(path).architecture == "yolox-nano"


def compressed_checkpoint(path: Path, state: State) -> None:
    torch.save(state, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def endless_tensor(path: Path, state: State) -> None:
    torch.save({**state, "head.cls_preds.0.weight": torch.zeros(1).expand(9000, 64, 1, 1)}, path)


def whole_but_one(path: Path, state: State) -> None:
    torch.save({name: value for name, value in state.items() if name != "head.stems.1.bn.running_var"}, path)


def with_nan(path: Path, state: State) -> None:
    torch.save({**state, "head.stems.1.bn.bias": torch.full((64,), torch.nan)}, path)


def with_huge(path: Path, state: State) -> None:
    torch.save({**state, "head.stems.1.bn.bias": torch.full((64,), 1e30)}, path)


def huger_than_float32(path: Path, state: State) -> None:
    huge = torch.full((64,), -1e300, dtype=torch.float64)
    torch.save({**state, "head.stems.1.bn.bias": huge}, path)


def with_negative_variance(path: Path, state: State) -> None:
    torch.save({**state, "head.stems.1.bn.running_var": torch.full((64,), -1.0)}, path)


def sparse(path: Path, state: State) -> None:
    torch.save({**state, "head.stems.1.bn.bias": torch.zeros(64).to_sparse()}, path)


def whole_numbers(path: Path, state: State) -> None:
    torch.save({**state, "head.stems.1.bn.bias": torch.zeros(64, dtype=torch.int32)}, path)


def cut_off_safetensors(path: Path, state: State) -> None:
    save_file(state, path)
    path.write_bytes(path.read_bytes()[:-1000])


def cut_off_zip(path: Path, state: State) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])


def with_many_tensors(path: Path, state: State) -> None:
    number = torch.zeros(1)
    torch.save({str(each): number for each in range(100_001)}, path)


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda path, state: path.write_bytes(b""), "is no torch checkpoint"),
        (lambda path, state: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)), "is no torch checkpoint"),
        (lambda path, state: path.write_bytes(b"\xff" * 7 + b"\x7f{" + bytes(10)), "is no torch checkpoint"),
        (lambda path, state: path.write_bytes(b"PK\x03\x04" + bytes(100)), "damaged"),
        (lambda path, state: path.write_bytes(b"\x80\x02" + bytes(100)), "damaged|code"),
        (lambda path, state: path.write_bytes(b"\x08" + b"\xff" * 100), "damaged"),
        (lambda path, state: torch.save(torch.zeros(3), path), "holds no state_dict"),
        (lambda path, state: torch.save({"model": {}}, path), "holds no state_dict"),
        (
            lambda path, state: torch.save({"fc.weight": torch.zeros(3)}, path),
            "belong to none of .*'fc.weight'",
        ),
        (compressed_checkpoint, "is compressed"),
        (endless_tensor, "claims weights of"),
        (whole_but_one, "nearest to yolox-nano, but 1 of its entries .* 'head.stems.1.bn.running_var'"),
        (with_nan, "not finite"),
        (with_huge, "beyond ±1e\\+09"),
        (huger_than_float32, "beyond ±1e\\+09"),
        (with_negative_variance, "variance 'head.stems.1.bn.running_var' is negative"),
        (sparse, "sparse"),
        (whole_numbers, "not finite, or no real numbers"),
        (cut_off_safetensors, "damaged"),
        (cut_off_zip, "damaged"),
        (with_many_tensors, "holds 100,001 weights; at most 100,000"),
    ],
)
def test_other_files_are_refused_with_a_reason(
    tmp_path: Path, detector: Detector, write: Callable[[Path, State], Any], problem: str
) -> None:
    path = tmp_path / "weights.pth"
    write(path, detector.state_dict())
    with pytest.raises(WeightsError, match=problem):
        read_weights(path)


@pytest.mark.parametrize("save", [torch.save, save_file], ids=["torch", "safetensors"])
def test_names_in_a_file_are_cut_in_messages(tmp_path: Path, save: Callable[[State, Path], None]) -> None:
    path = tmp_path / "weights.pth"
    save({"module." * 100_000 + "\x1b[0m": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"example 'module.*…'") as refused:
        read_weights(path)
    assert len(str(refused.value)) < 400


def test_unused_names_are_cut_in_the_report(tmp_path: Path, detector: Detector) -> None:
    path = tmp_path / "weights.pth"
    torch.save({**detector.state_dict(), "a" * 10_000: torch.zeros(1)}, path)
    assert max(map(len, read_weights(path).report)) < 200


def test_many_safetensors_are_refused_before_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_files, "MOST_TENSORS", 1)
    monkeypatch.setattr(weight_files, "load_file", pytest.fail)
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="holds 2 weights"):
        read_weights(path)


def test_a_file_that_is_too_large_is_not_even_opened(tmp_path: Path) -> None:
    path = tmp_path / "huge.pth"
    with path.open("wb") as file:
        file.truncate(weight_files.MAX_FILE_BYTES + 1)
    with pytest.raises(WeightsError, match="weights of at most"):
        read_weights(path)


def test_every_damage_is_a_weights_error(tmp_path: Path, detector: Detector, graph: bytes) -> None:
    save_file(detector.state_dict(), tmp_path / "weights.safetensors")
    torch.save(detector.state_dict(), tmp_path / "weights.pth")
    torch.save(detector.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "model.onnx").write_bytes(graph)
    random, refused = np.random.default_rng(0), 0
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for _ in range(25):
            damaged = np.frombuffer(whole, dtype=np.uint8).copy()
            where = random.integers(0, min(4000, len(whole)), size=10)
            damaged[where] = random.integers(0, 256, size=10)
            path.write_bytes(damaged[: random.integers(10, len(whole) + 1)].tobytes())
            try:
                read_weights(path)
            except WeightsError:
                refused += 1
    assert refused > 50


@pytest.mark.reference
def test_the_originals_checkpoint_and_graph_are_the_same_network(reference: Path) -> None:
    import cv2
    import onnxruntime

    weights = reference / "weights"
    picture = cv2.resize(cv2.imread(str(reference / "photos" / "dog.jpg")), (416, 416))
    pictures = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    session = onnxruntime.InferenceSession(
        weights / "yolox-nano-coco-416.onnx", providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {"images": pictures.numpy()})
    raw = []
    for name in ("yolox-nano-coco.pth", "yolox-nano-coco-416.onnx"):
        imported = read_weights(weights / name)
        assert (imported.architecture, imported.num_classes) == ("yolox-nano", 80)
        model = create_model("yolox-nano", num_classes=80).eval()
        model.load_state_dict(imported.state)
        with torch.no_grad():
            raw.append(model(pictures))
    torch.testing.assert_close(raw[0], raw[1], rtol=1e-3, atol=1e-3)
    found = torch.cat((raw[1][..., :4], raw[1][..., 4:].sigmoid()), dim=2)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
