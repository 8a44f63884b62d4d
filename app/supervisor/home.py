"""The home folder: made by `serve` and `demo` only, and held by one server at a time."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.settings import Settings
from app.supervisor.configuration import logs_folder, supervisor_socket

OWNER_ONLY = 0o700
LONGEST_SOCKET_PATH = 107
"""Bytes; the kernel's limit for unix sockets."""
LARGEST_PID = 4_194_304
"""The supervisor makes its socket under a name that ends with its process id."""


class CannotServeError(Exception):
    """The server cannot start; the message says why and what to do."""


class HomeSettingError(CannotServeError):
    """It cannot start with this home, however often it is tried."""


@contextmanager
def hold_home(settings: Settings, address: str) -> Iterator[None]:
    """Make the home if it is missing and keep any other server out of it.

    Raises:
        CannotServeError: another server holds it, or it cannot be used.
    """
    _make_home(settings)
    lock = settings.home_path / "run" / "serve.lock"
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotServeError(_held(lock, settings)) from None
        lock.write_text(json.dumps({"pid": os.getpid(), "address": address}))
        yield


def check_port(settings: Settings) -> None:
    """Raise CannotServeError when the API's port cannot be listened on."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise CannotServeError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}.\n"
            f"Stop what uses it, or choose another port: HARRIER_PORT={settings.port + 1} harrier serve"
        ) from None


def _make_home(settings: Settings) -> None:
    home = settings.home_path
    sockets = (settings.engine_socket, settings.broker_socket, f"{supervisor_socket(settings)}.{LARGEST_PID}")
    longest = max(len(os.fsencode(path)) for path in sockets)
    if longest > LONGEST_SOCKET_PATH:
        raise HomeSettingError(
            f"the path {home} is too long by {longest - LONGEST_SOCKET_PATH} characters: sockets in it could "
            "not be opened. Choose a shorter one with HARRIER_HOME"
        )
    try:
        home.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
        for folder in (home / "run", settings.broker_socket.parent, logs_folder(settings), settings.scratch):
            folder.mkdir(mode=OWNER_ONLY, exist_ok=True)
    except OSError as error:
        raise CannotServeError(f"cannot use {home} as home: {error.strerror}") from None


def _held(lock: Path, settings: Settings) -> str:
    holder = json.loads(lock.read_text() or "{}")
    return (
        f"Harrier already runs with the home {settings.home_path}: process {holder.get('pid')}, "
        f"{holder.get('address')}.\nStop it first, or give this one its own home and port: "
        f"HARRIER_HOME=… HARRIER_PORT=… harrier serve"
    )
