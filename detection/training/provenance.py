"""Say which code, libraries, configuration and pictures a model was made from. Plain Python."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from detection.data.records import DatasetRecord
from detection.training.config import EvaluationConfig, TrainingConfig

GIT_TIMEOUT_S = 5.0
LIBRARIES = ("harrier", "torch", "torchvision", "numpy", "opencv-python", "onnx", "onnxruntime")
DESCRIBE = ("describe", "--tags", "--long", "--always")
DIRTY = "-dirty"


def git_describe(folder: Path, *options: str) -> str:
    """Return `git describe --tags --long --always` of a folder, or an empty string outside a repository.

    Args:
        options: more of them, for git.
    """
    return _git(folder, *DESCRIBE, *options)


def file_date(path: Path) -> str:
    """Return when a file was last changed, as year-month-day without leading zeros."""
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return f"{changed.year}-{changed.month}-{changed.day}"


@lru_cache(maxsize=1)
def describe_source(file: Path = Path(__file__)) -> str:
    """Return the git description of the code that `file` is part of, or else the date of the file.

    It is asked for once: what is changed later is not what this process has loaded.

    The description ends with `-dirty` when the repository holds changes that were not committed. A repository
    that does not track the file is somebody else's: that of a project, say, in whose folder Harrier is
    installed.
    """
    folder = file.parent
    if not _git(folder, "ls-files", "--error-unmatch", "--", file.name):
        return file_date(file)
    return git_describe(folder, f"--dirty={DIRTY}") or file_date(file)


def _git(folder: Path, *arguments: str) -> str:
    """Return what git says about a folder; an empty string when it refuses, is missing, or takes too long."""
    # A file monitor is a program that the repository's own configuration names.
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def library_versions() -> dict[str, str]:
    """Return the versions of Python, of Harrier and of every library that computes."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def config_fingerprint(config: TrainingConfig) -> str:
    """Return the sha256 of all that decides what a training computes.

    Where and for how long it may run is left out: a training may go on elsewhere, or get more time. So is
    what is measured once it has ended.
    """
    measured = config.evaluation
    if isinstance(measured, EvaluationConfig):
        measured = replace(measured, tta=False)
    return fingerprint(
        replace(config, device="auto", time_limit_s=None, checkpoint_every=1, evaluation=measured)
    )


def dataset_fingerprint(dataset: DatasetRecord) -> str:
    """Return the sha256 of a dataset's classes, pictures, boxes and splits, in their order."""
    return fingerprint(dataset)


def fingerprint(value: Any) -> str:
    """Return the sha256 of a dataclass or plain value, written as JSON with sorted keys."""
    plain: Mapping[str, Any] | Any = (
        asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    )
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()
