"""One connection and its bounds, with applications made for the purpose."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from app.api import connection, short_bodies
from app.api.connection import HEADER_BYTES, MOST_WAITING, patient_protocol
from app.api.presence import presence_of
from app.api.problems import problem_response
from app.errors import OverloadedError
from app.server import limited
from app.settings import Settings

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
Story = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def fine(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("fine")(scope, receive, send)


async def full(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse before a byte of the body was read."""
    if scope["path"] == "/detect":
        await problem_response(OverloadedError("full", retry_after_s=3), "r1")(scope, receive, send)
    else:
        await Response("fine")(scope, receive, send)


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[int]:
    config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False)
    config.load()
    protocol, state = patient_protocol(5, 100, app), ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config, state, {}), "127.0.0.1", 0
    )
    yield server.sockets[0].getsockname()[1]
    server.close()
    for each in list(state.connections):
        each.transport.abort()
    await server.wait_closed()


def told(app: ASGIApp, story: Story) -> None:
    async def tell() -> None:
        async with asyncio.timeout(20), served(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await story(reader, writer)
            writer.close()

    asyncio.run(tell())


async def head_of(reader: asyncio.StreamReader) -> bytes:
    """Read one answer and return its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = [
        line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    ]
    await reader.readexactly(int(length))
    return head


def test_no_room_is_said_before_the_body_came_and_the_connection_goes_on() -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
        head = await head_of(reader)
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 3" in head
        assert b"connection: close" not in head
        writer.write(b"x" * 999_000 + GET)
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200")

    told(limited(full, 10, Settings(_env_file=None)), story)


def test_no_room_for_what_is_too_long_to_wait_for_ends_the_connection() -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n" + b"x" * 1000)
        head = await head_of(reader)
        assert head.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in head
        assert await reader.read() == b""

    told(limited(full, 10, Settings(_env_file=None)), story)


def test_the_rest_of_a_body_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LONGEST_SKIP_S", 0.05)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 503")
        assert await reader.read() == b""

    told(limited(full, 10, Settings(_env_file=None)), story)


def test_answers_come_in_the_order_of_the_requests() -> None:
    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.01 if scope["path"] == "/0" else 0)
        await Response(headers={"X-Path": scope["path"]})(scope, receive, send)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(GET.replace(b"/ ", b"/%d " % number) for number in range(10)))
        heads = [await head_of(reader) for _ in range(10)]
        assert [b"x-path: /%d" % number in head for number, head in enumerate(heads)] == [True] * 10

    told(named, story)


def test_only_so_many_requests_wait_on_one_connection() -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await gate.wait()
        await Response("fine")(scope, receive, send)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET * (MOST_WAITING + 2))
        await begun.wait()  # all that was written came at once
        gate.set()
        assert (await reader.read()).count(b"HTTP/1.1 200") == 1

    told(slow, story)


def test_what_is_no_http_behind_a_request_does_not_spoil_its_answer() -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await gate.wait()
        await Response("fine")(scope, receive, send)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET + b"\x16\x03\x01 nonsense\r\n\r\n")
        await begun.wait()
        gate.set()
        received = await reader.read()
        assert received.startswith(b"HTTP/1.1 200")
        assert received.count(b"HTTP/1.1") == 1

    told(slow, story)


@pytest.mark.parametrize("sent", [GET, GET * 3, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"])
def test_the_connection_tells_of_its_end_unasked(sent: bytes) -> None:
    begun, told_of = asyncio.Event(), asyncio.Event()

    async def watching(scope: Scope, receive: Receive, send: Send) -> None:
        presence = presence_of(scope)
        assert presence is not None
        presence.watch(told_of.set)
        begun.set()
        await told_of.wait()
        assert presence.has_left

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await begun.wait()
        assert not told_of.is_set()
        writer.transport.abort()
        await told_of.wait()

    told(watching, story)


def test_who_leaves_with_requests_waiting_is_missed_by_the_first() -> None:
    begun, seen = asyncio.Event(), list[str]()

    async def watching(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        while (message := await receive())["type"] != "http.disconnect":
            continue
        seen.append(message["type"])

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET * 3)
        await begun.wait()
        writer.transport.abort()
        while not seen:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert seen == ["http.disconnect"]

    told(watching, story)


def test_another_protocol_is_not_spoken_and_the_request_is_answered() -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + GET,
        )
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200")

    told(fine, story)


@pytest.mark.parametrize(
    "first", [b"", b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000]
)
def test_a_header_is_bounded_whether_it_ends_or_not(first: bytes) -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        if first:
            assert (await head_of(reader)).startswith(b"HTTP/1.1 200")
        writer.write(GET[:-2] + b"X: " + b"x" * HEADER_BYTES + b"\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400")

    told(limited(fine, 10, Settings(_env_file=None)), story)


def test_a_long_body_with_the_beginning_of_the_next_header_is_no_long_header() -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b"x" * 3 * HEADER_BYTES
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body + GET[:9])
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200")
        writer.write(GET[9:])
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200")

    told(limited(fine, 10, Settings(_env_file=None)), story)


async def read_pieces(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the sizes of the pieces in which the body came to the application."""
    sizes, is_complete = [], False
    while not is_complete:
        message = await receive()
        sizes.append(len(message["body"]))
        is_complete = not message["more_body"]
    await Response(headers={"X-Sizes": ",".join(map(str, sizes))})(scope, receive, send)


def sizes_in(head: bytes) -> list[int]:
    (line,) = [line for line in head.split(b"\r\n") if line.startswith(b"x-sizes")]
    return [int(size) for size in line.split(b":")[1].split(b",")]


def test_a_short_body_comes_to_the_application_in_one_piece() -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        await writer.drain()
        writer.write(b"x" * 100_000)
        assert sizes_in(await head_of(reader)) == [200_000]
        writer.write(GET)
        assert sizes_in(await head_of(reader)) == [0]

    told(read_pieces, story)


def test_a_body_that_comes_slowly_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "GATHERING_S", 0.01)
    begun = asyncio.Event()

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await read_pieces(scope, receive, send)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        await begun.wait()
        writer.write(b"def")
        assert sum(sizes_in(await head_of(reader))) == 6

    told(note, story)


def test_a_body_that_began_while_an_earlier_request_was_answered_is_read_from_its_beginning() -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow_at_first(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            begun.set()
            await gate.wait()
        await read_pieces(scope, receive, send)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        await begun.wait()
        gate.set()
        assert sizes_in(await head_of(reader)) == [0]
        writer.write(b"def")
        assert sum(sizes_in(await head_of(reader))) == 6

    told(slow_at_first, story)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2000000\r\n",
        b"Content-Length: 6\r\nExpect: 100-continue\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ],
    ids=["long", "asks first", "of unknown length"],
)
def test_other_bodies_are_not_waited_for(monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr(connection, "GATHERING_S", 1000)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200")

    told(fine, story)


def test_more_than_there_is_room_for_is_not_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "GATHERING_S", 1000)
    monkeypatch.setattr(short_bodies, "MOST_GATHERED_BYTES", 10)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200")

    told(fine, story)


def test_room_for_what_is_gathered_is_given_back() -> None:
    async def story() -> None:
        protocol = patient_protocol(5, 100, fine)
        config = uvicorn.Config(fine, lifespan="off", ws="none", log_config=None, access_log=False)
        config.load()
        server = await asyncio.get_running_loop().create_server(
            lambda: protocol(config, ServerState(), {}), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        while not protocol.gathered.num_bytes:
            await asyncio.sleep(0.001)
        assert protocol.gathered.num_bytes == 1000
        writer.transport.abort()  # leaves in the middle
        while protocol.gathered.num_bytes:
            await asyncio.sleep(0.001)
        server.close()
        assert await reader.read() == b""

    asyncio.run(asyncio.wait_for(story(), 20))


def test_head_and_body_of_an_answer_go_out_together() -> None:
    async def raw() -> None:
        async with asyncio.timeout(20), served(fine) as port:
            with socket.create_connection(("127.0.0.1", port)) as line:
                line.setblocking(False)
                loop = asyncio.get_running_loop()
                for _ in range(20):
                    await loop.sock_sendall(line, GET)
                    assert (await loop.sock_recv(line, 65536)).endswith(b"fine")

    asyncio.run(raw())


def test_the_head_of_an_answer_that_goes_on_later_is_sent_at_once() -> None:
    last = asyncio.Event()

    async def going_on(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await last.wait()
        await send({"type": "http.response.body", "body": b"fine"})

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        last.set()
        assert await reader.readexactly(4) == b"fine"

    told(going_on, story)


def test_an_answer_in_pieces_waits_for_a_client_that_does_not_read() -> None:
    """Also one that is made without a pause, so that nothing else has a turn meanwhile."""
    pieces, piece = 2000, b"x" * 65536
    made = 0

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal made
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            made += 1

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.05)
        assert made < pieces

    told(endless, story)


@pytest.mark.parametrize("pause_after", [0, 1, len(HIDDEN) // 2, len(HIDDEN)])
@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_a_request_for_another_protocol_keeps_its_body(protocol: bytes, pause_after: int) -> None:
    """Some clients ask for HTTP/2 with every first request."""

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await Response(scope["path"].encode() + b" " + body)(scope, receive, send)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"POST /seen HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %s\r\n" % protocol
        length = b"Content-Length: %d\r\n\r\n" % len(HIDDEN)
        writer.write(head + length + HIDDEN[:pause_after])
        await asyncio.sleep(0.01)
        writer.write(HIDDEN[pause_after:] + GET)
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(b"/seen ") + len(HIDDEN)) == b"/seen " + HIDDEN
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"/ "

    told(limited(echo, 10, Settings(_env_file=None)), story)


def test_a_body_of_unknown_length_behind_a_request_for_another_protocol_is_refused() -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        writer.write(
            head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
        )
        received = await reader.read()
        assert received.startswith(b"HTTP/1.1 400")
        assert received.count(b"HTTP/1.1") == 1

    told(fine, story)
