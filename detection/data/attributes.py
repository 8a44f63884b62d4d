"""What labels say about an object besides its class: its colour, its state. Plain Python.

An attribute is a name and a value, both short texts; numbers and truth values become texts. Whatever else a
file brings is left out with a finding, and so is what is too much: an archive is not to be trusted.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from detection.data.class_names import clean_class_name
from detection.data.finding_log import FindingCode, FindingLog
from detection.data.records import DatasetRecord, Split
from detection.data.wording import quoted

MOST_OF_A_BOX = 32
LONGEST_NAME = 100
LONGEST_VALUE = 200
"""Characters."""
MOST_ATTRIBUTES = 100
MOST_VALUES = 200
"""Of a dataset: an attribute with more values is no label but a number or a name of the object."""

Attributes = tuple[tuple[str, str], ...]
"""Names and values, sorted by name, each name once."""


class AttributeReader:
    """Reads the attributes of one label file's boxes."""

    def __init__(self, log: FindingLog) -> None:
        self._log = log

    def take(self, given: Iterable[tuple[object, object]], file: str, where: str) -> Attributes:
        """Return the names and values that can be used; the others become findings."""
        found: dict[str, str] = {}
        for number, (name, value) in enumerate(given):
            problem = "too many attributes" if number >= MOST_OF_A_BOX else _keep(found, name, value)
            if problem:
                message = f"{problem}; a name with a text, a number, true or false is expected"
                self._log.add(FindingCode.ATTRIBUTE_INVALID, file, message, where=where)
            if number >= MOST_OF_A_BOX:
                break
        return tuple(sorted(found.items()))


def _keep(found: dict[str, str], name: object, value: object) -> str:
    """Put an attribute to the others, and return what is wrong with it, if anything."""
    key = clean_class_name(name) if isinstance(name, str) and len(name) <= LONGEST_NAME else ""
    if not key:
        return f"the attribute {quoted(str(name))} has no name of 1 to {LONGEST_NAME} characters"
    if key in found:
        return f"the attribute {quoted(key)} is given twice; the first counts"
    text = _text(value)
    if not text:
        return f"the attribute {quoted(key)} has no value of 1 to {LONGEST_VALUE} characters"
    found[key] = text
    return ""


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value) if isinstance(value, str | int | float) else ""
    return clean_class_name(text) if len(text) <= LONGEST_VALUE else ""


def count_attributes(dataset: DatasetRecord) -> dict[str, dict[str, dict[str, int]]]:
    """Return how many boxes of each split have each value of each attribute, names and values sorted.

    Crowd regions do not count. Attributes with more values than a label has are left out; of very many the
    most frequent are kept.
    """
    counts: defaultdict[str, defaultdict[str, Counter[Split]]] = defaultdict(lambda: defaultdict(Counter))
    for split, name, value in _said(dataset):
        counts[name][value][split] += 1
    labels = {name: values for name, values in counts.items() if len(values) <= MOST_VALUES}
    frequent = sorted(labels, key=lambda name: (-_boxes(labels[name].values()), name))[:MOST_ATTRIBUTES]
    return {
        name: {value: _by_split(labels[name][value]) for value in sorted(labels[name])}
        for name in sorted(frequent)
    }


def report_left_out(dataset: DatasetRecord, log: FindingLog) -> None:
    """Add a finding for each attribute that boxes have and `count_attributes` leaves out."""
    values: defaultdict[str, set[str]] = defaultdict(set)
    for _, name, value in _said(dataset):
        values[name].add(value)
    kept = count_attributes(dataset)
    for name in sorted(values.keys() - kept.keys()):
        many = f"it has {len(values[name]):,} values, and a label has at most {MOST_VALUES}"
        other = f"of more than {MOST_ATTRIBUTES} attributes only the most frequent can be learnt"
        problem = many if len(values[name]) > MOST_VALUES else other
        log.add(FindingCode.ATTRIBUTE_INVALID, "", f"the attribute {quoted(name)} is no label: {problem}")


def _said(dataset: DatasetRecord) -> Iterator[tuple[Split, str, str]]:
    for image in dataset.images:
        for box in image.boxes:
            if not box.crowd:
                yield from ((image.split, name, value) for name, value in box.attributes)


def _boxes(counts: Iterable[Counter[Split]]) -> int:
    return sum(each.total() for each in counts)


def _by_split(counts: Counter[Split]) -> dict[str, int]:
    return {split.value: counts[split] for split in Split if counts[split]}


def as_pairs(given: Any) -> list[tuple[object, object]]:
    """Return the members of a JSON object; anything else is one pair without a name."""
    if given is None:
        return []
    return list(given.items()) if isinstance(given, dict) else [("", given)]
