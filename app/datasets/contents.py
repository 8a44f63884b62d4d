"""The files of an imported dataset: manifest, report, statistics and pictures, as its import wrote them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import msgspec

from app.storage import Storage
from detection.data.manifest import read_manifest
from detection.data.records import DatasetRecord

MANIFEST = "manifest.json"
REPORT = "report.json"
STATISTICS = "statistics.json"
IMAGES = "images"
KEPT_MANIFESTS = 4


class DatasetContents:
    """Reads what lies under a dataset's prefix; a ready dataset never changes, so that manifests are kept."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._manifests: OrderedDict[str, DatasetRecord] = OrderedDict()
        self._lock = threading.Lock()

    def manifest(self, prefix: str) -> DatasetRecord:
        with self._lock:
            if prefix not in self._manifests:
                self._manifests[prefix] = read_manifest(self._read(prefix, MANIFEST))
            self._manifests.move_to_end(prefix)
            while len(self._manifests) > KEPT_MANIFESTS:
                self._manifests.popitem(last=False)
            return self._manifests[prefix]

    def report(self, prefix: str) -> dict[str, Any]:
        """Return `{"findings": […], "counts": {…}}`; FileNotFoundError when the import got not that far."""
        found: dict[str, Any] = msgspec.json.decode(self._read(prefix, REPORT))
        return found

    def statistics(self, prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self._read(prefix, STATISTICS))
        return found

    def image(self, prefix: str, image_id: str) -> bytes:
        """Return the picture's original bytes."""
        return self._read(prefix, f"{IMAGES}/{image_id}")

    def _read(self, prefix: str, name: str) -> bytes:
        with self._storage.open(f"{prefix.rstrip('/')}/{name}") as file:
            return file.read()
