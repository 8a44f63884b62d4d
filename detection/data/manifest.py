"""A dataset's record as JSON: what is stored with the pictures and read by every training. Plain Python."""

from __future__ import annotations

import msgspec

from detection.data.records import DatasetRecord
from detection.errors import DatasetFormatError

MANIFEST_NAME = "manifest.json"


def write_manifest(dataset: DatasetRecord) -> bytes:
    """Return the record as JSON; equal records give equal bytes."""
    return msgspec.json.encode(dataset, order="deterministic")


def read_manifest(content: bytes) -> DatasetRecord:
    """Return the record that `write_manifest` wrote.

    Raises:
        DatasetFormatError: the content is no manifest.
    """
    try:
        return msgspec.json.decode(content, type=DatasetRecord)
    except msgspec.DecodeError as error:
        raise DatasetFormatError(MANIFEST_NAME, "", f"it is no manifest of a dataset: {error}") from None
