"""Uploaded archives: told apart by content, unpacked without trusting a byte of them. Plain Python."""

from detection.data.archive.extract import extract_archive
from detection.data.archive.limits import ArchiveFault, ArchiveLimits
from detection.data.archive.sniff import sniff_archive

__all__ = ["ArchiveFault", "ArchiveLimits", "extract_archive", "sniff_archive"]
