"""What is written arrives whole and in order, from however many threads, however slowly it is taken."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from app.detect.outgoing import Outgoing

Run = Callable[[Coroutine[Any, Any, None]], None]
RUNS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
THREADS, PIECES = 4, 40
HEAD = struct.Struct(">BBI")
"""Of a piece: its thread, its number there, its length."""


class Line(asyncio.Protocol):
    """A connection whose other end is read by hand."""

    other: socket.socket
    transport: asyncio.Transport
    outgoing: Outgoing

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()

    async def read_to_the_end(self) -> bytes:
        loop, content = asyncio.get_running_loop(), b""
        while piece := await loop.sock_recv(self.other, 7000):
            content += piece
        return content


def told(run: Run, story: Callable[[Line], Awaitable[None]]) -> None:
    async def tell() -> None:
        line = Line()
        end, line.other = socket.socketpair()
        line.other.setblocking(False)
        line.transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: line, sock=end)
        line.outgoing = Outgoing(line.transport)
        with line.other:
            async with asyncio.timeout(20):
                await story(line)
                line.outgoing.end()
                if not line.lost.is_set():
                    line.transport.abort()
                    await line.lost.wait()

    run(tell())


def pieces_of(thread: int) -> list[bytes]:
    sizes = [1, 10, 3000, 200_000]
    return [
        HEAD.pack(thread, number, size) + bytes([thread]) * size
        for number in range(PIECES)
        for size in [sizes[(thread + number) % len(sizes)]]
    ]


def taken_apart(content: bytes) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    while content:
        thread, _, size = HEAD.unpack_from(content)
        found.setdefault(thread, []).append(content[: HEAD.size + size])
        content = content[HEAD.size + size :]
    return found


@RUNS
def test_what_many_threads_write_is_whole_and_in_the_order_of_each(run: Run) -> None:
    async def story(line: Line) -> None:
        def write_all(thread: int) -> None:
            for piece in pieces_of(thread):
                line.outgoing.write([piece[:3], piece[3:]])

        threads = [threading.Thread(target=write_all, args=(number,)) for number in range(1, THREADS)]
        for thread in threads:
            thread.start()
        reading = asyncio.create_task(line.read_to_the_end())
        for piece in pieces_of(0):  # the loop writes as well
            line.outgoing.write([piece])
            await asyncio.sleep(0)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        line.outgoing.pass_on()
        line.transport.close()
        line.outgoing.end()
        assert taken_apart(await reading) == {number: pieces_of(number) for number in range(THREADS)}

    told(run, story)


@RUNS
def test_a_short_answer_is_there_before_the_loop_does_anything(run: Run) -> None:
    async def story(line: Line) -> None:
        line.outgoing.write([b"ab", b"cd"])
        assert line.other.recv(100) == b"abcd"

    told(run, story)


@RUNS
def test_after_the_end_nothing_goes_anywhere(run: Run) -> None:
    async def story(line: Line) -> None:
        line.outgoing.end()
        line.outgoing.write([b"ab"])
        line.outgoing.pass_on()
        with pytest.raises(BlockingIOError):
            line.other.recv(100)

    told(run, story)


@RUNS
def test_that_the_other_side_has_gone_is_the_business_of_the_transport(run: Run) -> None:
    async def story(line: Line) -> None:
        line.other.close()
        line.outgoing.write([b"ab"])
        await line.lost.wait()

    told(run, story)
