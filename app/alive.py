"""Whether a process of this host does its work, for container health checks: `python -m app.alive api`.

Being alive is not enough: the API and the engine must answer, and a worker must have been seen lately.
`python -m app.alive engine --end-frozen` also kills an engine that has fallen silent for several checks.
"""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import Callable
from datetime import timedelta
from http.client import HTTPConnection, HTTPException

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.address import reachable_host
from app.database.session import create_database_engine, create_sessions
from app.database.tables import Worker, utc_now
from app.detect.engine_client import EngineClient
from app.errors import HarrierError
from app.settings import Settings, get_settings
from app.supervisor.frozen_engine import note_check

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


def engine_answers(settings: Settings) -> bool:
    try:
        asyncio.run(_ask_engine(settings))
    except HarrierError:
        return False
    return True


def worker_was_seen(settings: Settings, pid: int | None = None) -> bool:
    """Return whether a worker of this host, or the one with this `pid`, has written its heartbeat lately."""
    oldest = utc_now() - timedelta(seconds=MISSED_HEARTBEATS * settings.heartbeat_s)
    lately = select(Worker.name).where(Worker.hostname == platform.node(), Worker.seen_at >= oldest)
    if pid is not None:
        lately = lately.where(Worker.pid == pid)
    engine = create_database_engine(settings)
    try:
        with create_sessions(engine)() as session:
            return session.scalars(lately.limit(1)).first() is not None
    except SQLAlchemyError:
        return False
    finally:
        engine.dispose()


async def _ask_engine(settings: Settings) -> None:
    client = EngineClient(settings)
    try:
        await client.status(timeout_s=TIMEOUT_S)
    finally:
        await client.close()


CHECKS: dict[str, Callable[[Settings], bool]] = {
    "api": api_answers,
    "engine": engine_answers,
    "worker": worker_was_seen,
}


def main(arguments: list[str]) -> int:
    """Return the exit status that a health check wants: 0 for healthy."""
    name, *options = arguments or [""]
    if name not in CHECKS or (options and arguments != ["engine", END_FROZEN]):
        sys.stderr.write(f"usage: python -m app.alive {'|'.join(CHECKS)}; engine may have {END_FROZEN}\n")
        return 2
    settings = get_settings()
    is_healthy = CHECKS[name](settings)
    if options:
        note_check(settings, answers=is_healthy)
    return 0 if is_healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
