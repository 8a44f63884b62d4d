"""Answers of an HTTP server as they come out of a socket, in whatever pieces: what a measurement needs."""

from __future__ import annotations

import re
from dataclasses import dataclass

END_OF_HEAD = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_RETRY_AFTER = re.compile(rb"\r\nretry-after:[ \t]*([^\r\n]*)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


class UnreadableAnswerError(Exception):
    """These bytes are no answer that can be told apart from the next one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer."""

    status: int
    body: bytes
    retry_after: str | None
    closes: bool
    """The server hangs up after it."""


class AnswerReader:
    """Puts one answer together; afterwards it is ready for the next of the same connection."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> Answer | None:
        """Take what was received and return the answer when its last byte is there.

        Raises:
            UnreadableAnswerError: no length is given, or it is no HTTP/1.1.
        """
        held = self._held + piece if self._held else piece
        end = held.find(END_OF_HEAD)
        if end < 0:
            self._held = held
            return None
        head, rest = held[:end], held[end + len(END_OF_HEAD) :]
        body = _body(head, rest)
        self._held = held if body is None else b""
        return None if body is None else _answer(head, body)


def _body(head: bytes, rest: bytes) -> bytes | None:
    length = _LENGTH.search(head)
    if length is not None:
        return rest[: int(length[1])] if len(rest) >= int(length[1]) else None
    if _CHUNKED.search(head) is not None:
        return _joined(rest)
    raise UnreadableAnswerError(head.decode(errors="replace"))


def _joined(rest: bytes) -> bytes | None:
    """Return the chunks in one piece, or None while the last one is missing."""
    chunks, position = [], 0
    while (line_end := rest.find(b"\r\n", position)) >= 0:
        size = int(rest[position:line_end].split(b";")[0], 16)
        start = line_end + 2
        if len(rest) < start + size + 2:
            return None
        if not size:
            return b"".join(chunks)
        chunks.append(rest[start : start + size])
        position = start + size + 2
    return None


def _answer(head: bytes, body: bytes) -> Answer:
    if not head.startswith(b"HTTP/1.1 "):
        raise UnreadableAnswerError(head[:80].decode(errors="replace"))
    retry_after = _RETRY_AFTER.search(head)
    return Answer(
        status=int(head[9:12]),
        body=body,
        retry_after=None if retry_after is None else retry_after[1].decode(errors="replace"),
        closes=_CLOSE.search(head) is not None,
    )
