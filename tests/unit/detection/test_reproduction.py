"""What a reproduction says of the weights, and of what was not as it was."""

from __future__ import annotations

import json

import torch

from detection.training.reproduction import TOLERANCE, differences, report_reproduction

THEN = {"source": "v1", "threads": 1, "devices": ["CPU"], "versions": {"torch": "2.11.0", "numpy": "2.4.6"}}


def test_nothing_is_said_of_what_was_the_same() -> None:
    assert list(differences(THEN, {**THEN, "seed": 1})) == []


def test_what_was_another_way_is_said_in_words() -> None:
    now = {
        **THEN,
        "source": "v1-3-gabc",
        "devices": ["CUDA:0 (Fast, 16384 MB)", "CUDA:1 (Fast, 16384 MB)"],
        "versions": {"torch": "2.15.0", "onnx": "1.20"},
        "micro_batches": 2,
    }
    assert list(differences(THEN, now)) == [
        "numpy: 2.4.6 then, not recorded now",
        "onnx: not recorded then, 1.20 now",
        "torch: 2.11.0 then, 2.15.0 now",
        "source: v1 then, v1-3-gabc now",
        "devices: CPU then, CUDA:0 (Fast, 16384 MB), CUDA:1 (Fast, 16384 MB) now",
        "parts that a batch is computed in: not recorded then, 2 now",
    ]


def test_the_same_weights_are_told_to_be_identical() -> None:
    state = {"a": torch.tensor([1.0, 2.0])}
    told = report_reproduction(THEN, THEN, state, state)
    assert (told["identical"], told["within_tolerance"], told["tolerance"]) == (True, True, TOLERANCE)
    assert told["summary"] == "all 1 tensors are the same to the bit"
    assert told["tensors_sha256"] == told["original_tensors_sha256"]


def test_weights_nearby_are_within_the_tolerance_and_others_beyond() -> None:
    first = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([1.0])}
    near = report_reproduction(THEN, THEN, first, {**first, "a": torch.tensor([1.0, 2.001])})
    assert (near["identical"], near["within_tolerance"]) == (False, True)
    assert "1 of 2 tensors differ, within the tolerance of 0.001: by 0.001" in near["summary"]
    far = report_reproduction(THEN, THEN, first, {**first, "a": torch.tensor([1.0, 3.0])})
    assert (far["within_tolerance"], far["worst_tensor"]) == (False, "a")
    assert "beyond the tolerance" in far["summary"]


def test_the_report_can_be_written_as_json_whatever_the_weights_are() -> None:
    first = {"a": torch.tensor([float("nan")]), "b": torch.tensor([1.0])}
    told = report_reproduction(THEN, THEN, first, {"a": torch.tensor([1.0]), "c": torch.tensor([1.0])})
    json.dumps(told, allow_nan=False)
    assert (told["max_abs_difference"], told["unmatched_tensors"]) == (None, ["b", "c"])
    assert told["summary"] == "2 tensors have no counterpart, one is 'b'"
