"""Which picture stands where in an epoch, and how large the network's input is at a step."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from detection.data.draws import Purpose, draws


class Sampler:
    """An endless stream of seeded permutations per epoch: every batch is full, every picture comes round.

    Position p of an epoch belongs to step p // batch size, whatever the number of ranks: rank r of w takes
    the positions p with p % w == r.

    Differs from the reference: there, ranks that do not divide the pictures evenly may have one step less.
    Here an epoch has the same steps and samples on any number of devices; see `recipes.steps_per_epoch`.
    """

    def __init__(self, num_images: int, *, seed: int) -> None:
        if num_images < 1:
            raise ValueError("there is no picture to sample from")
        self._num_images = num_images
        self._seed = seed
        self._permutation = lru_cache(maxsize=4)(self._drawn_permutation)

    def image_index(self, epoch: int, position: int) -> int:
        """Return which picture stands at a position of an epoch; positions beyond the last picture go on."""
        turn, place = divmod(position, self._num_images)
        return int(self._permutation(epoch, turn)[place])

    def _drawn_permutation(self, epoch: int, turn: int) -> NDArray[np.int64]:
        return draws(self._seed, Purpose.ORDER, epoch, turn).permutation(self._num_images)


def batch_positions(step: int, batch_size: int, *, rank: int = 0, world: int = 1) -> range:
    """Return the positions that one rank computes in a step, counted within the epoch."""
    return range(step * batch_size + rank, (step + 1) * batch_size, world)


def multi_scale_side(
    seed: int, step: int, side_range: tuple[int, int], *, every: int = 10, multiple: int = 32
) -> int:
    """Return the side of the square input at a step, in pixels: a multiple drawn anew every `every` steps.

    Args:
        step: counted over the whole training, so that every rank and every attempt draws the same.
        side_range: smallest and largest side, both included; multiples of `multiple`.
    """
    rng = draws(seed, Purpose.INPUT_SIZE, step // every)
    return int(rng.integers(side_range[0] // multiple, side_range[1] // multiple + 1)) * multiple
