"""Which of the three splits a folder or a file belongs to, by its name."""

from __future__ import annotations

import re

from detection.data.records import Split

_WORDS = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "trainval": Split.TRAIN,
    "val": Split.VAL,
    "valid": Split.VAL,
    "validation": Split.VAL,
    "dev": Split.VAL,
    "eval": Split.VAL,
    "test": Split.TEST,
    "testing": Split.TEST,
}


def split_of_word(word: str) -> Split | None:
    """Fold one word, with a year or number behind it or not: `valid`, `train2017`, `Test`."""
    return _WORDS.get(word.casefold().rstrip("0123456789"))


def split_of_stem(stem: str) -> Split | None:
    """Fold a file's name by the first word in it that names a split: `instances_val2017`."""
    return next(filter(None, map(split_of_word, re.findall(r"[^\W_]+", stem))), None)


def may_belong(name: str, split: Split | None) -> bool:
    """Return whether nothing in a path speaks against a split."""
    return split is None or split_of_folders(name) in (split, None)


def split_of_folders(name: str) -> Split | None:
    """Fold a path by the folder nearest to the file that names a split: `images/train/a.jpg`."""
    return next(filter(None, map(split_of_word, reversed(name.split("/")[:-1]))), None)
