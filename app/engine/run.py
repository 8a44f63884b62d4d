"""The engine's life: serve on a socket until SIGTERM, answer what was accepted, end."""

from __future__ import annotations

import asyncio
import signal
import socket

from app.detect.wire import STREAM_LIMIT
from app.engine.pipeline import Pipeline
from app.engine.server import Connection
from app.logs import get_logger
from app.settings import Settings
from app.storage import open_storage

log = get_logger(__name__)


async def run(settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM, then answer what was accepted and return.

    Raises:
        DetectionError: the device or the backend of the settings does not exist.
    """
    pipeline = Pipeline(settings, open_storage(settings))
    connections: dict[Connection, asyncio.Task[None] | None] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(pipeline, reader, writer, max_image_bytes=settings.max_image_bytes)
        connections[connection] = asyncio.current_task()
        await connection.serve()
        del connections[connection]

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    server = await asyncio.start_unix_server(serve, sock=listener, limit=STREAM_LIMIT)
    log.info("engine ready", socket=str(settings.engine_socket), **pipeline.facts)
    await stopping.wait()
    server.close()
    await pipeline.admission.drain()
    for connection, serving in tuple(connections.items()):
        await connection.finish()
        if serving is not None:
            await asyncio.wait({serving})
    log.info("engine stopped")
