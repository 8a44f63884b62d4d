"""Which process listens at an address of this host."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import psutil

CREDENTIALS = struct.Struct("3i")
"""Process, user and group, as the kernel tells them of who listens on a socket."""


def unix_listener(path: Path) -> int:
    """Return who listens on a socket; 0 when nobody does, or somebody in another container."""
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)):
            return 0
        told = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid: int = CREDENTIALS.unpack(told)[0]
    return pid


def tcp_listener(port: int) -> int:
    """Return who listens on a port; 0 when nobody does, or somebody of another user."""
    listening = (
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
    )
    return next((pid for pid in listening if pid), 0)
