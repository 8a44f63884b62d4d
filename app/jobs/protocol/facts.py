"""The words of the job protocol: a claim, the orders that come with it, and why a job failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.jobs.states import JobKind
from detection.data.wording import printable

MAX_TEXT = 4000
"""Characters of a message, a reason or a line of a log: they may quote files, which hold anything."""


class LostLeaseError(Exception):
    """Somebody else owns the job now, or it has ended: write nothing more and stop."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job, until the lease runs out."""

    job_id: str
    kind: JobKind
    fence: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Device:
    """Something that a job can compute on, as its worker knows it."""

    number: str
    """As jobs ask for it: `cpu`, or the accelerator's number on that worker."""
    name: str
    memory_bytes: int | None
    uuid: str | None = None
    """What its driver calls it. Only accelerators have one, and nothing without one is leased."""

    def as_json(self) -> dict[str, Any]:
        return {"device": self.number, "name": self.name, "memory_bytes": self.memory_bytes}


@dataclass(frozen=True, slots=True)
class Orders:
    """What a heartbeat brings back."""

    cancel: bool
    finish: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed, for people and for programs."""

    code: str
    message: str
    retryable: bool = False
    details: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": storable(self.message),
            "retryable": self.retryable,
            **({"details": dict(self.details)} if self.details else {}),
        }


def storable(text: str) -> str:
    """Return a text as it is stored: of bounded length, and without what a database refuses."""
    return printable(text, MAX_TEXT)
