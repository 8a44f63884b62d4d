"""What a training learns from: the pictures of its dataset, or the crops of their boxes."""

from __future__ import annotations

from detection.data.crop_records import crop_dataset
from detection.data.records import DatasetRecord, Split
from detection.data.wording import counted
from detection.families.classifier import ClassifierConfig
from detection.training.config import TrainingConfig

LONGEST_LINE = 1000
"""Characters: there may be thousands of classes."""


def learnt_from(dataset: DatasetRecord, config: TrainingConfig) -> tuple[DatasetRecord, tuple[str, ...]]:
    """Return what is learnt from, and what the log says of it."""
    if not isinstance(config, ClassifierConfig):
        return dataset, ()
    crops = crop_dataset(dataset, config.attribute)
    sizes = {split: len(crops.record.of_split(split)) for split in Split}
    in_splits = ", ".join(f"{number:,} in {split}" for split, number in sizes.items() if number)
    notes = [f"crops: {in_splits}; classes: {', '.join(crops.record.classes)}"[:LONGEST_LINE]]
    if crops.left_out:
        boxes = counted(crops.left_out, "box", "boxes")
        notes.append(f"{boxes} without the attribute {config.attribute!r} were left out")
    return crops.record, tuple(notes)
