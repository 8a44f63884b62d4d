"""Cut a validation split from the training split when an archive has none.

Iterative stratification, rarest class first: Sechidis et al., "On the Stratification of Multi-Label Data",
2011, https://doi.org/10.1007/978-3-642-23808-6_10
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from detection.data.records import ImageRecord, Split

NO_CLASS = -1


def cut_validation(images: Sequence[ImageRecord], fraction: float, seed: int) -> list[ImageRecord]:
    """Return all pictures, about `fraction` of the training pictures moved to validation.

    Every class keeps its share of pictures on both sides, as far as its number allows; so do pictures
    without boxes. Copies of one picture stay together. At least one picture moves and one stays, unless
    there are fewer than two different ones. The result depends on the order of `images` and on the seed only.

    Args:
        fraction: between 0 and 1; 0 moves nothing.
    """
    groups: dict[str, list[ImageRecord]] = defaultdict(list)
    for image in images:
        if image.split is Split.TRAIN:
            groups[image.sha256 or image.id].append(image)
    if len(groups) < 2 or fraction <= 0:
        return list(images)
    classes = {key: _classes(group) for key, group in groups.items()}
    moved = _draw(classes, fraction, random.Random(seed))
    moved_ids = {image.id for key in moved for image in groups[key]}
    return [replace(image, split=Split.VAL) if image.id in moved_ids else image for image in images]


def _classes(group: list[ImageRecord]) -> frozenset[int]:
    return frozenset(box.class_id for image in group for box in image.boxes) or frozenset({NO_CLASS})


def _draw(classes: dict[str, frozenset[int]], fraction: float, rng: random.Random) -> set[str]:
    """Return the keys to move: per class, rarest first, its share less what moved for rarer ones."""
    keys = list(classes)
    rng.shuffle(keys)
    keys_of: dict[int, list[str]] = defaultdict(list)
    for key in keys:
        for class_id in classes[key]:
            keys_of[class_id].append(key)
    moved: set[str] = set()
    settled: set[str] = set()
    for _, members in sorted(keys_of.items(), key=lambda item: (len(item[1]), item[0])):
        missing = round(fraction * len(members)) - sum(key in moved for key in members)
        moved.update([key for key in members if key not in settled][: max(missing, 0)])
        settled.update(members)
    if not moved:
        moved = {keys[0]}
    if len(moved) == len(keys):
        moved.discard(keys[0])
    return moved
