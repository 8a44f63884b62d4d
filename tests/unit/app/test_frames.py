"""Frames on a connection: whole however they arrive, bounded, and never mixed up."""

from __future__ import annotations

import asyncio
import random

import pytest

from app.detect import frames
from app.detect.frames import LENGTHS, FrameProtocol

SCRATCH_BYTES = 64 * 1024
"""Less than in truth: what happens at the edge happens sooner."""


@pytest.fixture(autouse=True)
def _small_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "SCRATCH_BYTES", SCRATCH_BYTES)


class Recorder:
    """Takes what a protocol hands over."""

    def __init__(self, *, max_bytes: int = 10 * SCRATCH_BYTES) -> None:
        self.frames: list[tuple[bytes, bytes]] = []
        self.ends = 0
        self.protocol = FrameProtocol(max_bytes=max_bytes, on_frame=self._take, on_end=self._end)

    def _take(self, frame: tuple[memoryview, bytes]) -> None:
        self.frames.append((bytes(frame[0]), frame[1]))

    def _end(self) -> None:
        self.ends += 1

    def feed(self, content: bytes, piece_bytes: int) -> None:
        """Receive as a socket would: as much as fits into the buffer that is offered."""
        while content:
            buffer = self.protocol.get_buffer(-1)
            size = min(len(buffer), len(content), piece_bytes)
            buffer[:size], content = content[:size], content[size:]
            self.protocol.buffer_updated(size)


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.aborted = True


def frames_of_many_sizes() -> list[tuple[bytes, bytes]]:
    numbers = random.Random(0)
    edges = (0, 1, 10, 1000, SCRATCH_BYTES - 9, SCRATCH_BYTES - 8, SCRATCH_BYTES - 7, 3 * SCRATCH_BYTES)
    return [(numbers.randbytes(size % 700 + 1), numbers.randbytes(size)) for size in edges * 2]


@pytest.mark.parametrize("piece_bytes", [7, 4096, SCRATCH_BYTES, 10**9])
def test_frames_are_the_same_however_they_are_cut(piece_bytes: int) -> None:
    sent, wire, receiver = frames_of_many_sizes(), Wire(), Recorder()
    sender = Recorder().protocol
    sender.connection_made(wire)
    for message, picture in sent:
        sender.send(message, picture)
    receiver.feed(wire.written, piece_bytes)
    assert receiver.frames == sent


def test_a_frame_that_is_too_long_ends_the_connection_before_it_is_read() -> None:
    receiver, wire = Recorder(max_bytes=100), Wire()
    receiver.protocol.connection_made(wire)
    receiver.feed(LENGTHS.pack(50, 51), 8)
    assert wire.aborted
    assert receiver.frames == []


def test_what_is_written_without_a_connection_goes_nowhere() -> None:
    async def story() -> None:
        lost, wire = Recorder(), Wire()
        lost.protocol.connection_made(wire)
        lost.protocol.pause_writing()
        lost.protocol.connection_lost(None)
        await lost.protocol.sent()
        lost.protocol.send(b"a")
        lost.protocol.close()
        assert (wire.written, lost.ends) == (b"", 1)

    asyncio.run(story())


def test_a_full_connection_is_waited_for() -> None:
    async def story() -> None:
        protocol = Recorder().protocol
        protocol.pause_writing()
        waiting = asyncio.create_task(protocol.sent())
        await asyncio.sleep(0)
        assert not waiting.done()
        protocol.resume_writing()
        await waiting

    asyncio.run(story())
