"""Every error that the service answers with on purpose; the status is a number here, HTTP is elsewhere.

HarrierError
 |- BadRequestError 400            |- UnauthorizedError 401       |- ForbiddenError 403
 |- NotFoundError 404              |- MethodNotAllowedError 405   |- NotAcceptableError 406
 |- RequestTimeoutError 408
 |- ConflictError 409 (impossible in this state), by what is in the way
 |- PayloadTooLargeError 413       |- UnsupportedMediaError 415   |- RangeNotSatisfiableError 416
 |- InvalidInputError 422          |- RateLimitedError 429        |- NoSpaceError 507
 `- UnavailableError 503, retry_after_s: overloaded, database, engine, draining

Each `code` is stable and explained in docs/errors.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

Place = Literal["body", "query", "path", "header", "file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One of the things that are wrong with a request, and where."""

    problem: str
    pointer: str = ""
    """JSON pointer into the place: `/optimizer/lr`."""
    place: Place = "body"


class HarrierError(Exception):
    """Base of all errors with an answer. The message is written for users and may be shown as it is."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        problems: Iterable[Problem] = (),
        headers: Mapping[str, str] | None = None,
        links: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problems = tuple(problems)
        self.headers = dict(headers or {})
        self.links = dict(links or {})
        """Where to go on: for example the call that makes a missing file."""


class InternalError(HarrierError):
    """Ours, not the caller's; the log knows more under the request id."""


class BadRequestError(HarrierError):
    status, code, title = 400, "bad_request", "The request cannot be understood"


class HostNotAllowedError(BadRequestError):
    code, title = "host_not_allowed", "This host name is not served here"


class UnauthorizedError(HarrierError):
    status, code, title = 401, "unauthorized", "A valid API key is needed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class ForbiddenError(HarrierError):
    status, code, title = 403, "forbidden", "The API key may not do this"


class CrossSiteError(ForbiddenError):
    code, title = "cross_site", "The request comes from another web site"


class NotFoundError(HarrierError):
    status, code, title = 404, "not_found", "There is no such thing"


class MethodNotAllowedError(HarrierError):
    status, code, title = 405, "method_not_allowed", "This path does not know the method"


class NotAcceptableError(HarrierError):
    status, code, title = 406, "not_acceptable", "The answer cannot have the wanted form"


class RequestTimeoutError(HarrierError):
    status, code, title = 408, "request_timeout", "The request body came too slowly"


class ConflictError(HarrierError):
    status, code, title = 409, "conflict", "Impossible in the present state"


class DatasetNotReadyError(ConflictError):
    code, title = "dataset_not_ready", "The dataset is not ready"


class InUseError(ConflictError):
    code, title = "in_use", "A job still uses it"


class JobEndedError(ConflictError):
    code, title = "job_ended", "The job has ended"


class JobActiveError(ConflictError):
    code, title = "job_active", "The job has not ended"


class NotResumableError(ConflictError):
    code, title = "not_resumable", "The job cannot be resumed"


class NotFinishableError(ConflictError):
    code, title = "not_finishable", "The job cannot be finished early"


class NoPretrainedWeightsError(ConflictError):
    code, title = "no_pretrained_weights", "No pretrained weights of this architecture"


class ArchitectureMismatchError(ConflictError):
    code, title = "architecture_mismatch", "The model is of another architecture"


class NotReproducibleError(ConflictError):
    code, title = "not_reproducible", "The training cannot be started again"


class NoCommonClassesError(ConflictError):
    code, title = "no_common_classes", "Model and dataset share no class"


class EmptySplitError(ConflictError):
    code, title = "empty_split", "The split has no pictures"


class FileNotMadeError(ConflictError):
    code, title = "file_not_made", "This file was not made yet"


class NoModelError(ConflictError):
    code, title = "no_model", "There is no model yet"


class NotWritableError(ConflictError):
    code, title = "not_writable", "The format cannot hold this dataset"


class WrongTaskError(ConflictError):
    code, title = "wrong_task", "The model is for another task"


class IdempotencyKeyInUseError(ConflictError):
    code, title = "idempotency_key_in_use", "The first request with this key is still running"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Retry-After": "1"})


class PayloadTooLargeError(HarrierError):
    status, code, title = 413, "payload_too_large", "The request is too large"


class QuotaExceededError(PayloadTooLargeError):
    code, title = "quota_exceeded", "The storage quota is used up"


class UnsupportedMediaError(HarrierError):
    status, code, title = 415, "unsupported_media", "The content is of an unknown kind"


class RangeNotSatisfiableError(HarrierError):
    status, code, title = 416, "range_not_satisfiable", "The range lies outside the file"


class InvalidInputError(HarrierError):
    status, code, title = 422, "invalid_input", "The request is not valid"


class IdempotencyKeyReusedError(InvalidInputError):
    code, title = "idempotency_key_reused", "The key was used for another request"


class RateLimitedError(HarrierError):
    status, code, title = 429, "rate_limited", "Too many requests in a short time"

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)})


class TooManyStreamsError(RateLimitedError):
    code, title = "too_many_streams", "Too many event streams are open"


class UnavailableError(HarrierError):
    status, code, title = 503, "unavailable", "Not available just now"

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)})
        self.retry_after_s = retry_after_s


class OverloadedError(UnavailableError):
    code, title = "overloaded", "Too much is waiting already"


class DatabaseUnavailableError(UnavailableError):
    code, title = "database_unavailable", "The database does not answer"


class EngineUnavailableError(UnavailableError):
    code, title = "engine_unavailable", "The engine does not answer"


class DrainingError(UnavailableError):
    code, title = "draining", "The server is stopping"


class NoSpaceError(HarrierError):
    status, code, title = 507, "no_space", "The disk is too full"


def all_errors() -> list[type[HarrierError]]:
    """Return every error that has an answer, for the documentation and its test."""
    found: list[type[HarrierError]] = []
    waiting: list[type[HarrierError]] = [HarrierError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting.extend(kind.__subclasses__())
    return sorted(set(found), key=lambda kind: (kind.status, kind.code))
