"""Frames on a connection: whole however they arrive, bounded, and never mixed up."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

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
    """One end of a connection that can be looked at from the other end."""

    def __init__(self) -> None:
        self._end, self.other = socket.socketpair()
        super().__init__({"socket": self._end})
        self.other.setblocking(False)
        self.aborted = False

    @contextmanager
    def between(self, protocol: FrameProtocol) -> Iterator[None]:
        protocol.connection_made(self)
        with self._end, self.other:
            yield
            protocol.connection_lost(None)

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.aborted = True


def frames_of_many_sizes() -> list[tuple[bytes, bytes]]:
    numbers = random.Random(0)
    edges = (0, 1, 10, 1000, SCRATCH_BYTES - 9, SCRATCH_BYTES - 8, SCRATCH_BYTES - 7, 3 * SCRATCH_BYTES)
    return [(numbers.randbytes(size % 700 + 1), numbers.randbytes(size)) for size in edges * 2]


@pytest.mark.parametrize("piece_bytes", [7, 4096, SCRATCH_BYTES, 10**9])
def test_frames_are_the_same_however_they_are_cut(piece_bytes: int) -> None:
    sent, receiver = frames_of_many_sizes(), Recorder()
    frames = (LENGTHS.pack(len(message), len(picture)) + message + picture for message, picture in sent)
    receiver.feed(b"".join(frames), piece_bytes)
    assert receiver.frames == sent


def test_what_is_sent_is_received() -> None:
    async def story() -> None:
        wire, sender, receiver = Wire(), Recorder().protocol, Recorder()
        with wire.between(sender):
            sender.send(b"message", b"picture")
            sender.send(b"another message")
            receiver.feed(wire.other.recv(1000), 1000)
        assert receiver.frames == [(b"message", b"picture"), (b"another message", b"")]

    asyncio.run(story())


def test_a_frame_that_is_too_long_ends_the_connection_before_it_is_read() -> None:
    async def story() -> None:
        receiver, wire = Recorder(max_bytes=100), Wire()
        with wire.between(receiver.protocol):
            receiver.feed(LENGTHS.pack(50, 51), 8)
        assert wire.aborted
        assert receiver.frames == []

    asyncio.run(story())


def test_what_is_written_without_a_connection_goes_nowhere() -> None:
    async def story() -> None:
        lost, wire = Recorder(), Wire()
        with wire.between(lost.protocol):
            lost.protocol.pause_writing()
        await lost.protocol.sent()
        lost.protocol.send(b"a")
        lost.protocol.close()
        assert lost.ends == 1

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


def test_a_connection_for_which_no_file_is_left_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("app.detect.outgoing.os.dup", full)

    async def story() -> None:
        recorder, wire = Recorder(), Wire()
        with wire.between(recorder.protocol):
            recorder.protocol.send(b"goes nowhere")
            assert wire.aborted
        assert recorder.ends == 1

    asyncio.run(story())
