"""What the library's errors mean for a job."""

from __future__ import annotations

import errno

from detection import errors
from worker.failures import CODES, failure_of, is_disk_full


def test_every_error_of_the_library_has_a_code_of_its_own() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.DetectionError)
        and kind not in (errors.DetectionError, errors.ArchiveError)
    ]
    assert [kind for kind in kinds if not issubclass(kind, tuple(CODES))] == []
    assert len(set(CODES.values())) == len(CODES)


def test_an_archive_keeps_its_own_code() -> None:
    failure = failure_of(errors.ArchiveError("archive_path", "../x", "leads outside"))
    assert (failure.code, failure.retryable) == ("archive_path", False)


def test_a_full_disk_is_tried_again() -> None:
    assert failure_of(errors.NoSpaceError(200, 100)).code == "no_space"
    assert failure_of(errors.NoSpaceError(200, 100)).retryable
    assert is_disk_full(OSError(errno.ENOSPC, "full"))
    assert not is_disk_full(OSError(errno.EIO, "broken"))
