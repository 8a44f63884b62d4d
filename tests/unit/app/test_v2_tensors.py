"""Tensors of the Open Inference Protocol: what is written is read again, and nothing else is."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.detect.errors import DamagedPictureError
from app.detect.wire import Box, Detected, Timing
from app.v2.outputs import OUTPUTS, tensors_of
from app.v2.tensors import Tensor, TensorError, join_elements, num_elements, split_elements

FP32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
INT32 = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text("aä€🙂", max_size=5)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_elements_come_back_as_they_went(elements: list[bytes]) -> None:
    assert split_elements(memoryview(join_elements(elements)), len(elements)) == elements


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(0, 10))
def test_another_number_of_elements_is_refused(elements: list[bytes], expected: int) -> None:
    content = memoryview(join_elements(elements))
    if expected == len(elements):
        assert len(split_elements(content, expected)) == expected
    else:
        with pytest.raises(TensorError):
            split_elements(content, expected)


@given(st.binary(max_size=60), st.integers(0, 20))
def test_any_bytes_are_elements_or_an_error(content: bytes, expected: int) -> None:
    try:
        elements = split_elements(memoryview(content), expected)
    except TensorError:
        return
    assert join_elements(elements) == content
    assert len(elements) == expected


@pytest.mark.parametrize(
    ("content", "expected", "complaint"),
    [
        (b"\1\0\0", 1, "cut off within its length"),
        (b"\5\0\0\0abcd", 1, "announced with 5 bytes, and 4 are left"),
        (b"\xff\xff\xff\xffabcd", 1, "announced with 4294967295 bytes"),
        (b"\1\0\0\0ab", 1, "bytes are left after the 1 elements"),
        (b"", 1, "0 elements came"),
        (b"a", 0, "bytes are left"),
    ],
)
def test_a_broken_tensor_says_where(content: bytes, expected: int, complaint: str) -> None:
    with pytest.raises(TensorError, match=complaint):
        split_elements(memoryview(content), expected)


def test_a_gigantic_shape_costs_nothing() -> None:
    with pytest.raises(TensorError):
        split_elements(memoryview(b"\0\0\0\0"), num_elements([2**31 - 1, 2**31 - 1]))


@given(st.lists(FP32, max_size=20), st.lists(INT32, max_size=20), st.lists(TEXT, max_size=9))
def test_bytes_are_those_of_numpy(floats: list[float], ints: list[int], texts: list[str]) -> None:
    assert np.array_equal(np.frombuffer(Tensor("a", "FP32", (len(floats),), floats).packed(), "<f4"), floats)
    assert np.array_equal(np.frombuffer(Tensor("a", "INT32", (len(ints),), ints).packed(), "<i4"), ints)
    packed = Tensor("a", "BYTES", (len(texts),), texts).packed()
    assert [each.decode() for each in split_elements(memoryview(packed), len(texts))] == texts


def test_a_document_has_the_values_or_says_how_many_bytes_they_are() -> None:
    tensor = Tensor("scores", "FP32", (1, 2), [0.5, 0.25])
    assert tensor.document() == {"name": "scores", "datatype": "FP32", "shape": (1, 2), "data": [0.5, 0.25]}
    assert tensor.packed() == struct.pack("<2f", 0.5, 0.25)
    assert tensor.document(num_bytes=8) == {
        "name": "scores",
        "datatype": "FP32",
        "shape": (1, 2),
        "parameters": {"binary_data_size": 8},
    }


def seen(*boxes: Box) -> Detected:
    timing = Timing(0.0, 0.0, 0.0, 0.0, 0.0, 1)
    return Detected(id=1, model_id="m1", width=9, height=9, boxes=boxes, timing=timing, queue_images=0)


def test_outputs_are_padded_to_the_fullest_picture() -> None:
    first, second = Box(1.0, 2.0, 3.0, 4.0, 0, "cat", 0.9), Box(5.0, 6.0, 7.0, 8.0, 1, "dög", 0.8)
    images = [seen(first), DamagedPictureError("cut off"), seen(second, first), seen()]
    found = {tensor.name: tensor for tensor in tensors_of(images, OUTPUTS)}
    assert list(found["num_detections"].values) == [1, -1, 2, 0]
    assert list(found["errors"].values) == ["", "cut off", "", ""]
    assert found["boxes"].shape == (4, 2, 4)
    boxes = np.array(found["boxes"].values).reshape(found["boxes"].shape)
    assert boxes[2].tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]
    assert not boxes[0, 1].any()
    assert list(found["class_ids"].values) == [0, -1, -1, -1, 1, 0, -1, -1]
    assert list(found["labels"].values) == ["cat", "", "", "", "dög", "cat", "", ""]
    for name, tensor in found.items():
        assert num_elements(tensor.shape) == len(tensor.values), name
        axes = zip(OUTPUTS[name].shape, tensor.shape, strict=True)
        assert all(known in (-1, real) for known, real in axes), name


def test_pictures_without_a_box_have_outputs_without_a_row() -> None:
    found = {tensor.name: tensor for tensor in tensors_of([seen(), seen()], OUTPUTS)}
    assert found["boxes"].shape == (2, 0, 4)
    assert found["boxes"].packed() == b""
    assert found["labels"].packed() == b""
