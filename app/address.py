"""Where the API is reached from this machine, and whether others can reach it."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from app.settings import Settings

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""A server that listens everywhere, and where it is found from here."""
HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")


def reachable_host(settings: Settings) -> str:
    """Return the host that a program on this machine can connect to, without brackets."""
    return ANY_ADDRESS.get(settings.host, settings.host)


def server_address(settings: Settings) -> str:
    """Return the URL that a browser on this machine can open."""
    host = reachable_host(settings)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


@lru_cache(256)
def host_name(header: str) -> str | None:
    """Return the name in a Host header, in lower case and without its port; None when it is no host name."""
    match = HOST.fullmatch(header)
    return match["name"].lower() if match is not None else None


@lru_cache(256)
def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
