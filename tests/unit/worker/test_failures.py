"""What the library's errors mean for a job."""

from __future__ import annotations

import errno

from detection import errors
from worker.failures import CODES, crash_line, failure_of, is_disk_full


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


def test_a_crash_is_told_in_one_line_without_folders() -> None:
    line = crash_line(FileNotFoundError(2, "gone", "/srv/harrier/datasets/a.jpg"))
    assert line == "internal error: FileNotFoundError: [Errno 2] gone: '…/a.jpg'"
    assert crash_line(KeyError()) == "internal error: KeyError"
    assert crash_line(ValueError("a\nb\n")) == "internal error: ValueError: a"
