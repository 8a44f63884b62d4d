"""The engine's life: serve on a socket until SIGTERM, answer what was accepted, end."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket

from app.detect.frames import FrameProtocol
from app.engine.holds import Holds
from app.engine.pipeline import Pipeline
from app.engine.server import Connection
from app.engine.threads import end_when_stuck
from app.logs import get_logger
from app.settings import Settings
from app.storage import open_storage

log = get_logger(__name__)


async def run(settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM, then answer what was accepted and return.

    Raises:
        UnusableSettingError: the device or the backend of the settings does not exist here.
    """
    pipeline = Pipeline(settings, open_storage(settings))
    holds = Holds(pipeline.hold)
    connections: set[Connection] = set()

    def welcome() -> FrameProtocol:
        connection = Connection(
            pipeline, holds, max_image_bytes=settings.max_image_bytes, when_over=connections.discard
        )
        connections.add(connection)
        return connection.protocol

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = await loop.create_unix_server(welcome, sock=listener)
    # What was imported until now lasts as long as the process: looking through it again finds nothing, and
    # takes a tenth of a second.
    gc.collect()
    gc.freeze()
    watching = loop.create_task(end_when_stuck(pipeline.pools))
    log.info("engine ready", socket=str(settings.engine_socket), **pipeline.facts)
    await stopping.wait()
    server.close()
    await pipeline.admission.drain()
    for connection in tuple(connections):
        await connection.finish()
    watching.cancel()
    log.info("engine stopped")
