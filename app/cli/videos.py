"""`harrier detect` with videos: each becomes a job, and what it made is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.cli.client import Api, CommandError
from app.cli.progress import follow_job
from app.cli.transfer import download, upload

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
ENDINGS = {"detections": ".detections.ndjson", "video": ".annotated.webm"}
"""What the fetched files are called, after the name of the video."""


def is_video(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES


def detect_in_videos(
    api: Api, files: Sequence[Path], parameters: dict[str, Any], out: Path
) -> list[dict[str, Any]]:
    """Look at videos one after the other, and fetch what was made of each into a folder.

    Raises:
        CommandError: one of them cannot be used; what was made of those before it stays.
    """
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        raise CommandError("two of the videos have one name; look at them with two calls and two --out")
    out.mkdir(parents=True, exist_ok=True)
    return [_look(api, file, parameters, out) for file in files]


def _look(api: Api, file: Path, parameters: dict[str, Any], out: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        job = upload(api, "/detect", field="video", file=opened, name=file.name, data=parameters)
    ended = follow_job(api, job["id"])
    made = {}
    for name, ending in ENDINGS.items():
        if name in ended["links"]:
            target = out / f"{file.stem}{ending}"
            download(api, f"/jobs/{job['id']}/{name}", target)
            made[name] = str(target)
    shown = ("frames", "detections", "duration_s", "findings")
    result = {name: ended["result"][name] for name in shown}
    return {"file": str(file), "job": job["id"], "model": ended["model_id"], **result, "files": made}
