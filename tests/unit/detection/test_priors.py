"""Priors of all levels and YOLOX's way of writing boxes relative to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from detection.priors import Priors, decode_offsets, encode_offsets, grid_priors
from tests.npz import read_npz

STRIDES = (8, 16, 32)


def test_levels_come_fine_to_coarse_and_row_by_row() -> None:
    priors = grid_priors((16, 24), (8, 16))
    assert priors.strides_P1[:, 0].tolist() == [8.0] * 6 + [16.0] * 2
    assert priors.corners_P2.tolist() == [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8], [0, 0], [16, 0]]
    assert priors.centres_P2[-1].tolist() == [24.0, 8.0]


def test_a_side_that_is_no_multiple_gets_a_cell_for_its_rest() -> None:
    assert len(grid_priors((416, 416), (64,)).corners_P2) == 49


def test_decoding_by_hand() -> None:
    priors = Priors(torch.tensor([[16.0, 8.0]]), torch.tensor([[8.0]]))
    offsets = torch.tensor([[[0.5, -1.0, 0.0, 1.0]]])
    expected = torch.tensor([[[20.0, 0.0, 8.0, 8 * torch.e]]])
    torch.testing.assert_close(decode_offsets(offsets, priors), expected)


def test_encoding_undoes_decoding() -> None:
    priors = grid_priors((64, 96), STRIDES)
    offsets = torch.randn(2, len(priors.corners_P2), 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encode_offsets(decode_offsets(offsets, priors), priors), offsets)


def test_an_empty_box_is_encoded_with_finite_numbers() -> None:
    priors = grid_priors((32, 32), (32,))
    assert encode_offsets(torch.zeros(1, 4), priors).isfinite().all()


def test_decoding_has_the_originals_numbers(numbers: Path) -> None:
    case = read_npz(numbers / "yolox_decode.npz")
    names = sorted({name.split("_")[0] for name in case})
    assert names
    for name in names:
        height, width = case[f"{name}_input_hw"].tolist()
        priors = grid_priors((height, width), STRIDES)
        cells = np.stack((case[f"{name}_grid_x"], case[f"{name}_grid_y"]), axis=1)
        np.testing.assert_array_equal(priors.corners_P2 / priors.strides_P1, cells)
        np.testing.assert_array_equal(priors.strides_P1[:, 0], case[f"{name}_stride"])
        raw = torch.from_numpy(case[f"{name}_raw"])
        decoded = torch.cat((decode_offsets(raw[..., :4], priors), raw[..., 4:].sigmoid()), dim=2)
        np.testing.assert_allclose(decoded, case[f"{name}_decoded"], rtol=1e-5, atol=1e-5)
