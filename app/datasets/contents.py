"""The files of an imported dataset: manifest, report, statistics and pictures, as its import wrote them."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from app.storage import Storage
from detection.data.export import export_zip
from detection.data.findings import Finding
from detection.data.manifest import MANIFEST_NAME, read_manifest
from detection.data.records import DatasetRecord, ImageRecord

MANIFEST = MANIFEST_NAME
REPORT = "report.json"
STATISTICS = "statistics.json"
IMAGES = "images"
KEPT = 4
"""Datasets whose contents are remembered: somebody who leafs through one asks for it again and again."""


class Report(msgspec.Struct, frozen=True):
    """Everything that was noticed in the archive."""

    findings: list[Finding]
    counts: dict[str, int]


@dataclass(frozen=True)
class Contents:
    """What a ready dataset holds, and what was noticed about each picture."""

    dataset: DatasetRecord
    report: Report

    @cached_property
    def images(self) -> Mapping[str, ImageRecord]:
        return {image.id: image for image in self.dataset.images}

    @cached_property
    def codes(self) -> Mapping[str, list[str]]:
        """The codes of the findings about each picture."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for finding in self.report.findings:
            if finding.image_id and finding.code not in found[finding.image_id]:
                found[finding.image_id].append(finding.code)
        return found


class DatasetContents:
    """Reads what lies under a dataset's prefix; a ready dataset never changes, so that it can be kept."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._kept: OrderedDict[str, Contents] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, prefix: str) -> Contents:
        with self._lock:
            if prefix not in self._kept:
                self._kept[prefix] = Contents(self.manifest(prefix), self.report(prefix))
            self._kept.move_to_end(prefix)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return self._kept[prefix]

    def manifest(self, prefix: str) -> DatasetRecord:
        return read_manifest(self._read(prefix, MANIFEST))

    def report(self, prefix: str) -> Report:
        """Return the report; FileNotFoundError when the import did not get that far."""
        return msgspec.json.decode(self._read(prefix, REPORT), type=Report)

    def statistics(self, prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self._read(prefix, STATISTICS))
        return found

    def image(self, prefix: str, image_id: str) -> bytes:
        """Return the picture's original bytes."""
        return self._read(prefix, f"{IMAGES}/{image_id}")

    def export(self, prefix: str, format_name: str) -> Iterator[bytes]:
        """Yield the dataset as a zip in another format; one picture is in memory at a time."""
        return export_zip(self.of(prefix).dataset, format_name, lambda image: self.image(prefix, image.id))

    def _read(self, prefix: str, name: str) -> bytes:
        with self._storage.open(f"{prefix.rstrip('/')}/{name}") as file:
            return file.read()
