"""The engine: `python -m app.engine` takes picture bytes on a unix socket and answers with boxes.

It is a process of its own, so that a hostile picture, a leak or an out-of-memory kill costs the engine and
never the API.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from app.detect.wire import STREAM_LIMIT
from app.engine.listener import EngineRunningError, listen
from app.engine.pipeline import Pipeline
from app.engine.server import Connection
from app.logs import configure_logging, get_logger
from app.settings import Settings, get_settings
from app.storage import open_storage
from detection.errors import DetectionError

log = get_logger(__name__)


async def run(settings: Settings) -> None:
    """Serve until SIGTERM, then answer what was accepted and return."""
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
    with listen(settings.engine_socket) as socket:
        server = await asyncio.start_unix_server(serve, sock=socket, limit=STREAM_LIMIT)
        log.info("engine ready", socket=str(settings.engine_socket), **pipeline.facts)
        await stopping.wait()
        server.close()
    await pipeline.admission.drain()
    for connection, serving in tuple(connections.items()):
        await connection.finish()
        if serving is not None:
            await asyncio.wait({serving})
    log.info("engine stopped")


def main() -> None:
    settings = get_settings()
    configure_logging(settings)
    try:
        asyncio.run(run(settings))
    except (DetectionError, EngineRunningError) as error:
        log.error("engine cannot start", reason=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
