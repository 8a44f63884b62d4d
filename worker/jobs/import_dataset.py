"""Import a dataset: unpack the archive, read it, store pictures and manifest, make it ready or rejected."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
from sqlalchemy.orm import Session

from app.database.tables import Dataset
from app.datasets.contents import IMAGES, MANIFEST, REPORT, STATISTICS
from app.errors import QuotaExceededError
from app.jobs.protocol import note_change, storable
from app.storage import folder_of
from app.usage.service import check_room
from detection.data.archive import ArchiveLimits, extract_archive
from detection.data.attributes import count_attributes
from detection.data.class_rules import ClassRules
from detection.data.finding_log import FindingLog
from detection.data.findings import Action, Finding, Severity
from detection.data.importing import ImportedDataset, read_dataset
from detection.data.manifest import write_manifest
from detection.data.records import DatasetRecord, ImageRecord, Split
from detection.data.summary import summarise
from detection.data.wording import counted
from detection.errors import DetectionError
from detection.training.reporting import ALL_SEEN
from worker.attempt import Attempt
from worker.busy import pulse_while_bytes_move
from worker.failures import failure_of
from worker.fault_points import fault_point
from worker.pace import Pace

STORED_AT_ONCE = 8
MOST_CLASSES_NAMED = 100
"""In the job's log; the dataset names all."""
UNPACKED, READ = 0.3, 0.8
"""How much of the work is done after each step, about; a third of the time goes into unpacking."""


def run(attempt: Attempt) -> None:
    importing = DatasetImport(attempt)
    try:
        imported = importing.read()
        importing.check_quota(imported)
    except (DetectionError, QuotaExceededError) as error:
        importing.reject(error)
    else:
        importing.store(imported)
    importing.clean_up()


class DatasetImport:
    """One attempt at importing one dataset."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt, self._config = attempt, attempt.job.config
        self._dataset_id = str(self._config["dataset_id"])
        self._prefix = f"datasets/{self._dataset_id}/{attempt.job.fence}"
        self._log, self._pace = FindingLog(), Pace()
        self._stored_bytes = 0

    def read(self) -> ImportedDataset:
        """Unpack and read the archive into this attempt's scratch folder."""
        attempt, config, settings = self._attempt, self._config, self._attempt.settings
        attempt.report.stage("unpacking")
        archive = attempt.storage.local_path(config["upload_key"], attempt.scratch / "upload")
        folder = attempt.scratch / "unpacked"
        limits = ArchiveLimits(
            max_entries=settings.max_archive_files,
            max_total_bytes=settings.max_archive_bytes,
            max_ratio=settings.max_archive_ratio,
        )
        with pulse_while_bytes_move(attempt.control):
            names = extract_archive(
                archive, folder, limits, progress=lambda fraction: self._show(0.0, UNPACKED, fraction)
            )
        attempt.report.line(f"unpacked {counted(len(names), 'file')}")
        attempt.report.stage("reading")
        return read_dataset(
            folder,
            format=config["format"],
            class_rules=ClassRules(**(config["classes"] or {})),
            validation_fraction=config["validation_fraction"],
            seed=config["seed"],
            max_pixels=settings.max_image_pixels,
            progress=lambda fraction: self._show(UNPACKED, READ, fraction),
            log=self._log,
        )

    def check_quota(self, imported: ImportedDataset) -> None:
        """Refuse a dataset whose pictures need more room than their archive, and more than the quota leaves.

        Raises:
            QuotaExceededError: it does not fit.
        """
        num_bytes = sum(path.stat().st_size for path in imported.paths.values())

        def check(session: Session) -> None:
            archive_bytes = self._row(session).size_bytes
            check_room(session, self._attempt.settings, num_bytes - archive_bytes)

        self._attempt.read(check)

    def store(self, imported: ImportedDataset) -> None:
        """Store everything, the manifest last, and make the dataset ready with the end of the job."""
        dataset, report = imported.dataset, self._attempt.report
        report.stage("publishing")
        self._write_report(imported.findings, imported.finding_counts)
        self._write(STATISTICS, msgspec.json.encode(summarise(dataset)))
        self._store_pictures(imported.paths)
        self._write(MANIFEST, write_manifest(dataset))
        for line in _summary(dataset, imported.finding_counts):
            report.line(line)
        fault_point("import_uncommitted", self._attempt.job.fence)
        self._attempt.succeed({"dataset_id": self._dataset_id}, lambda session: self._ready(session, dataset))

    def reject(self, error: DetectionError | QuotaExceededError) -> None:
        """Report why an archive cannot become a dataset, and all that was found until then.

        The protocol rejects its dataset.
        """
        failure = failure_of(error)
        if failure.retryable:
            raise error
        failure = replace(failure, message=storable(failure.message))
        reason = Finding(
            code=failure.code,
            severity=Severity.ERROR,
            action=Action.DROPPED,
            file=str(getattr(error, "path", "") or getattr(error, "entry", "")),
            where=str(getattr(error, "where", "")),
            message=failure.message,
        )
        counts = {failure.code: 1, **self._log.counts}
        self._write_report([reason, *self._log.findings], counts)
        for line in (failure.message, _findings(self._log.counts)):
            self._attempt.report.line(line)
        self._attempt.fail(failure, self._rejected)

    def clean_up(self) -> None:
        """Remove the upload, and what earlier attempts have stored; the janitor does it if we cannot."""
        storage = self._attempt.storage
        storage.delete_all(folder_of(str(self._config["upload_key"])))
        for fence in range(1, self._attempt.job.fence):
            storage.delete_all(f"datasets/{self._dataset_id}/{fence}/")

    def _store_pictures(self, paths: Mapping[str, Path]) -> None:
        """Store several at once: each waits for the disk, or for a distant store, most of its time."""

        self._stored_bytes += sum(path.stat().st_size for path in paths.values())

        def store(image_id: str) -> None:
            self._attempt.storage.adopt(f"{self._prefix}/{IMAGES}/{image_id}", paths[image_id])

        with ThreadPoolExecutor(STORED_AT_ONCE) as pool:
            for number, _ in enumerate(pool.map(store, paths), start=1):
                self._show(READ, ALL_SEEN, number / len(paths))

    def _ready(self, session: Session, dataset: DatasetRecord) -> None:
        row = self._row(session)
        row.status, row.format = "ready", dataset.format
        row.classes, row.splits = list(dataset.classes), _splits(dataset)
        row.attributes = count_attributes(dataset) or None
        row.storage_prefix, row.stored_bytes = self._prefix, self._stored_bytes
        note_change(session, f"datasets/{row.id}", {"status": "ready"})

    def _rejected(self, session: Session) -> None:
        row = self._row(session)
        row.storage_prefix, row.stored_bytes = self._prefix, self._stored_bytes

    def _row(self, session: Session) -> Dataset:
        return session.get_one(Dataset, self._dataset_id)

    def _write_report(self, findings: Sequence[Finding], counts: Mapping[str, int]) -> None:
        self._write(REPORT, msgspec.json.encode({"findings": findings, "counts": counts}))

    def _write(self, name: str, content: bytes) -> None:
        self._attempt.storage.write(f"{self._prefix}/{name}", io.BytesIO(content))
        self._stored_bytes += len(content)

    def _show(self, start: float, end: float, fraction: float) -> None:
        self._attempt.control.pulse()
        done = start + (end - start) * fraction
        self._attempt.report.progress({"fraction": done}, eta_s=self._pace.eta_s(done, 1 - done))


def _splits(dataset: DatasetRecord) -> dict[str, dict[str, int]]:
    splits = {split: dataset.of_split(split) for split in Split}
    return {
        split.value: {
            "images": len(images),
            "boxes": sum(len(image.boxes) for image in images),
            **({"crowds": crowds} if (crowds := _num_crowds(images)) else {}),
        }
        for split, images in splits.items()
        if images
    }


def _num_crowds(images: Sequence[ImageRecord]) -> int:
    return sum(box.crowd for image in images for box in image.boxes)


def _summary(dataset: DatasetRecord, counts: Mapping[str, int]) -> list[str]:
    """Return what was found in a few lines for the job's log."""
    found = [
        f"{counted(split['images'], 'picture')} with {counted(split['boxes'], 'box', 'boxes')} in {name}"
        for name, split in _splits(dataset).items()
    ]
    classes = ", ".join(dataset.classes[:MOST_CLASSES_NAMED])
    more = "" if len(dataset.classes) <= MOST_CLASSES_NAMED else ", …"
    return [
        f"{dataset.format}: {', '.join(found)}; {counted(len(dataset.classes), 'class', 'classes')}: "
        f"{classes}{more}",
        _findings(counts),
    ]


def _findings(counts: Mapping[str, int]) -> str:
    faults = ", ".join(f"{count:,} × {code}" for code, count in Counter(counts).most_common())
    return f"findings: {faults or 'none'}"
