"""The order of pictures and the size of inputs follow from seed, epoch and position alone."""

from __future__ import annotations

from collections import Counter

import pytest

from detection.data.sampler import Sampler, batch_positions, multi_scale_side


def test_every_picture_comes_once_before_any_comes_again() -> None:
    sampler = Sampler(10, seed=3)

    indices = [sampler.image_index(0, position) for position in range(25)]

    assert sorted(indices[:10]) == sorted(indices[10:20]) == list(range(10))
    assert indices[:10] != indices[10:20]
    assert len(set(indices[20:])) == 5


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = Sampler(50, seed=seed)
        return [sampler.image_index(epoch, position) for position in range(50)]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_a_batch_whose_pictures_do_not_depend_on_them(world: int) -> None:
    for step in range(3):
        ranks = [batch_positions(step, 8, rank=rank, world=world) for rank in range(world)]

        assert sorted(position for positions in ranks for position in positions) == list(
            range(step * 8, step * 8 + 8)
        )
        assert {len(positions) for positions in ranks} == {8 // world}


def test_nothing_to_sample_from() -> None:
    with pytest.raises(ValueError, match="no picture"):
        Sampler(0, seed=0)


def test_input_sides_stay_in_range_and_change_every_so_often() -> None:
    sides = [multi_scale_side(0, step, (320, 640), every=10) for step in range(2000)]

    assert set(sides) == set(range(320, 641, 32))
    assert all(len(set(sides[start : start + 10])) == 1 for start in range(0, 2000, 10))
    assert max(Counter(sides).values()) < 2000 / 11 * 2
    assert sides == [multi_scale_side(0, step, (320, 640), every=10) for step in range(2000)]
    assert sides != [multi_scale_side(1, step, (320, 640), every=10) for step in range(2000)]
