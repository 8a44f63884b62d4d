"""What `GET /usage` shows."""

from __future__ import annotations

from app.api.shapes import EXAMPLE_ID, Shape, example


class UsedBytes(Shape):
    id: str
    """Of the dataset, model or job."""
    name: str
    """As it is shown in lists."""
    bytes: int
    """What it takes."""


class RetentionRead(Shape):
    """After how many days things go by themselves; null is never. Models and ready datasets always stay."""

    jobs_days: float | None
    """Ended jobs with their log, series and checkpoints."""
    rejected_days: float | None
    """Rejected datasets."""
    audit_days: float | None
    """Notes of who changed what."""
    events_days: float
    """Events that a stream can replay."""


class UsageRead(Shape):
    """Bytes by what they belong to, the largest first; the lists are cut at 1000, the sums are not."""

    model_config = example(
        total_bytes=26_214_400,
        free_bytes=53_687_091_200,
        quota_bytes=107_374_182_400,
        quota_left_bytes=107_347_968_000,
        retention={"jobs_days": 90.0, "rejected_days": 7.0, "audit_days": None, "events_days": 7.0},
        datasets=[{"id": EXAMPLE_ID, "name": "blood cells", "bytes": 15_728_640}],
        models=[{"id": EXAMPLE_ID, "name": "blood cells", "bytes": 7_340_032}],
        jobs=[{"id": EXAMPLE_ID, "name": "yolox-nano on blood cells", "bytes": 3_145_728}],
    )

    total_bytes: int
    """Datasets, models, checkpoints, results of videos, and files that wait for their job: what the quota
    counts."""
    free_bytes: int
    """On the disk of the home."""
    quota_bytes: int | None
    """`HARRIER_STORAGE_QUOTA_BYTES`; null is only what the disk holds."""
    quota_left_bytes: int | None
    """What may still be added; null without a quota."""
    retention: RetentionRead
    """What goes by itself."""
    datasets: list[UsedBytes]
    """With what was made of their archives."""
    models: list[UsedBytes]
    """All files of each."""
    jobs: list[UsedBytes]
    """Checkpoints, and what was made of videos; they go with `DELETE /jobs/{id}`."""
