"""What the API's description shows of videos: the job that a video has become."""

from __future__ import annotations

from app.api.shapes import EXAMPLE_ID, NULL, example_of
from app.jobs.schemas import JobRead
from app.jobs.states import QUEUE_OF, JobKind, JobStatus

VIDEO_JOB_EXAMPLE = {
    **example_of(JobRead),
    "kind": JobKind.DETECT_VIDEO,
    "queue": QUEUE_OF[JobKind.DETECT_VIDEO],
    "name": "street.mp4 by street objects",
    "status": JobStatus.QUEUED,
    "stage": JobStatus.QUEUED,
    "progress": {},
    "eta_s": NULL,
    "timing": {},
    "metrics": {},
    "attempt": 0,
    "queue_position": 1,
    "devices": [],
    "config": {
        "model_id": EXAMPLE_ID,
        "score_threshold": 0.3,
        "max_detections": 100,
        "classes": [],
        "annotate": True,
        "every": 1,
        "device": "auto",
        "file_name": "street.mp4",
        "size_bytes": 7743401,
    },
    "dataset_id": NULL,
    "model_id": EXAMPLE_ID,
    "transitions": [{"status": "queued", "attempt": 0, "reason": "", "at": "2026-11-20T12:00:00Z"}],
    "updated_at": "2026-11-20T12:00:00Z",
    "started_at": NULL,
    "links": {
        name: f"/jobs/{EXAMPLE_ID}{path}"
        for name, path in (("self", ""), ("events", "/events"), ("log", "/log"), ("cancel", "/cancel"))
    },
}
