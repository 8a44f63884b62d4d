"""What a load generator is told, and what it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from tests.benchmarks.load.answers import Answer

ADDRESS = "127.0.0.1"
MODEL = b'"model":"'


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to send, how, and for how long."""

    port: int
    path: str
    pictures: list[str]
    """Files, sent in turn."""
    clients: int = 1
    seconds: float = 3.0
    warm_up_s: float = 0.5
    """Sent before, and not counted."""
    requests: int | None = None
    """Ends earlier, after so many answers."""
    rate: float | None = None
    """Requests a second in an open loop; `clients` is then the most connections."""
    damaged: str | None = None
    """A file that one more client sends all the time."""
    resetting: int = 0
    """Clients that reset the connection some time after the body."""
    reset_after_s: float = 0.02
    name_models: bool = False
    """Count which model each answer names."""
    keep_bodies: int = 0
    """Return the first so many bodies."""


@dataclass
class Tally:
    """What one kind of client got."""

    times_ms: list[float] = field(default_factory=list)
    """Of answers with status 200."""
    refused_ms: list[float] = field(default_factory=list)
    """Of all other answers."""
    statuses: Counter[str] = field(default_factory=Counter)
    retry_after: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    """Connections that ended without an answer."""
    models: Counter[str] = field(default_factory=Counter)
    bodies: list[str] = field(default_factory=list)

    def note(self, answer: Answer, took_ms: float, plan: Plan) -> None:
        """Count one answer."""
        self.statuses[str(answer.status)] += 1
        if answer.status == 200:
            self.times_ms.append(took_ms)
        else:
            self.refused_ms.append(took_ms)
            self.retry_after[str(answer.retry_after)] += 1
        if len(self.bodies) < plan.keep_bodies:
            self.bodies.append(answer.body.decode(errors="replace"))
        if plan.name_models and answer.status == 200:
            self.models[model_of(answer.body)] += 1


def model_of(body: bytes) -> str:
    """Return the one model that an answer names; what is named otherwise tells how."""
    found = [piece.split(b'"', 1)[0].decode(errors="replace") for piece in body.split(MODEL)[1:]]
    return found[0] if len(found) == 1 else f"{len(found)} models"


def requests_of(pictures: list[str], plan: Plan) -> Iterator[bytes]:
    """Yield whole requests with the pictures of some files, in turn, for ever."""
    return cycle([request_with(Path(path).read_bytes(), plan) for path in pictures])


def request_with(picture: bytes, plan: Plan) -> bytes:
    """Return the bytes of one request."""
    head = (
        f"POST {plan.path} HTTP/1.1\r\nHost: {ADDRESS}:{plan.port}\r\nContent-Type: image/jpeg\r\n"
        f"Content-Length: {len(picture)}\r\n\r\n"
    )
    return head.encode() + picture
