"""Whether a process of this host does its work, for container health checks: `python -m app.alive api`.

Being alive is not enough: the API and the engine must answer, and a worker must have been seen lately.
`python -m app.alive api --end-frozen` also kills a process that was well and is silent for several checks.
"""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.exc import SQLAlchemyError

from app.address import reachable_host
from app.database.clock import database_now
from app.database.session import create_database_engine, create_sessions
from app.database.tables import Job, Worker, utc_now
from app.detect.engine_client import EngineClient
from app.errors import HarrierError
from app.jobs.states import OWNED
from app.settings import Settings, get_settings
from app.supervisor.frozen import note_check
from app.supervisor.listeners import tcp_listener, unix_listener

TIMEOUT_S = 5.0
MISSED_HEARTBEATS = 3
OK = 200
END_FROZEN = "--end-frozen"
ALWAYS_ALLOWED_HOST = "localhost"
"""Whatever HARRIER_ALLOWED_HOSTS says: the check is about the API, not about its name."""


def api_answers(settings: Settings) -> bool:
    answer = ask_api(settings, "/livez")
    return answer is not None and answer[0] == OK


def ask_api(settings: Settings, path: str) -> tuple[int, str] | None:
    """Return status and body of the API's answer on this machine; None when it does not answer in time."""
    connection = HTTPConnection(reachable_host(settings), settings.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Host": ALWAYS_ALLOWED_HOST})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


def api_is_silent(settings: Settings, pid: int) -> bool:
    """Return whether a process listens and answers nothing: a busy one says 503, one that stops refuses."""
    return tcp_listener(settings.port) == pid and ask_api(settings, "/livez") is None


def engine_answers(settings: Settings) -> bool:
    try:
        asyncio.run(_ask_engine(settings))
    except HarrierError:
        return False
    return True


async def _ask_engine(settings: Settings) -> None:
    client = EngineClient(settings)
    try:
        await client.status(timeout_s=TIMEOUT_S)
    finally:
        await client.close()


def worker_was_seen(settings: Settings, pid: int | None = None) -> bool:
    """Return whether a worker of this host, or the one with this `pid`, has written its heartbeat lately."""
    lately = _workers_here(pid).where(Worker.seen_at >= _long_ago(settings))
    return _first(settings, lately) is not None


def worker_process(settings: Settings) -> int:
    """Return the process of the worker of this host that was seen last."""
    return _first(settings, _workers_here().order_by(Worker.seen_at.desc())) or 0


def worker_is_silent(settings: Settings, pid: int) -> bool:
    """Return whether a worker writes nothing although the database answers, and so holds up its queue.

    One that still keeps a job works, whatever has become of its heartbeat.
    """
    keeps_a_job = select(Job.id).where(
        Job.lease_owner == Worker.name, Job.status.in_(OWNED), Job.lease_until >= database_now()
    )
    silent = _workers_here(pid).where(Worker.seen_at < _long_ago(settings), ~keeps_a_job.exists())
    return _first(settings, silent) is not None


def _workers_here(pid: int | None = None) -> Select[Any]:
    here = select(Worker.pid).where(Worker.hostname == platform.node())
    return here if pid is None else here.where(Worker.pid == pid)


def _long_ago(settings: Settings) -> datetime:
    return utc_now() - timedelta(seconds=MISSED_HEARTBEATS * settings.heartbeat_s)


def _first(settings: Settings, query: Select[Any]) -> int | None:
    """Return the first process that is found; None also while the database does not answer."""
    engine = create_database_engine(settings)
    try:
        with create_sessions(engine)() as session:
            pid: int | None = session.scalars(query.limit(1)).first()
            return pid
    except SQLAlchemyError:
        return None
    finally:
        engine.dispose()


@dataclass(frozen=True, slots=True)
class Check:
    """How a program is looked after: `find` and `is_silent` as `note_check` wants them."""

    is_well: Callable[[Settings], bool]
    find: Callable[[Settings], int]
    is_silent: Callable[[Settings, int], bool]


CHECKS = {
    "api": Check(api_answers, lambda settings: tcp_listener(settings.port), api_is_silent),
    "engine": Check(
        engine_answers, lambda settings: unix_listener(settings.engine_socket), lambda settings, pid: True
    ),
    "worker": Check(worker_was_seen, worker_process, worker_is_silent),
}


def main(arguments: list[str]) -> int:
    """Return the exit status that a health check wants: 0 for healthy."""
    name, *options = arguments or [""]
    if name not in CHECKS or options not in ([], [END_FROZEN]):
        sys.stderr.write(f"usage: python -m app.alive {'|'.join(CHECKS)} [{END_FROZEN}]\n")
        return 2
    settings, check = get_settings(), CHECKS[name]
    is_well = check.is_well(settings)
    if options:
        note_check(
            settings,
            name,
            is_well=is_well,
            find=partial(check.find, settings),
            is_silent=partial(check.is_silent, settings),
        )
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
