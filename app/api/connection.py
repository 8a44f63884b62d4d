"""HTTP as a hostile client speaks it: bounds that belong to the connection, not to a request."""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from enum import Enum, auto
from typing import Any, ClassVar, cast

import httptools
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.api.no_request import NoRequestError, bad_request, reason_of
from app.api.presence import KEY as PRESENCE
from app.api.presence import Presence
from app.api.short_bodies import GATHERING_S, Gathered, Gathering, short_length
from app.api.unread_answers import UnreadAnswers
from app.api.whole_answers import WholeAnswers

HEADER_BYTES = 16 * 1024
MOST_PIECES = 20_000
"""More pieces of a body than this are suspicious; they must then be worth the work of reading them."""
SMALLEST_MEAN_BYTES = 64
MOST_WAITING = 100
"""Requests that a connection may send before the answer to an earlier one."""
LONGEST_SKIP_S = 2.0
"""So long the rest of a body may come that nobody will read."""


class Part(Enum):
    """Where in a request the client is."""

    HEADER = auto()
    BODY = auto()
    END = auto()
    """And before the first one."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, but with an end to its patience: for headers, tiny pieces, unread answers."""

    timeout_s: ClassVar[float]
    max_connections: ClassVar[int]
    app_when_full: ClassVar[tuple[ASGIApp]]
    """What answers on one connection too many."""
    gathered: ClassVar[Gathered]
    _part = Part.END
    _num_begun = 0
    """Requests so far; they are told apart by it."""
    _header_bytes = _num_pieces = _num_bytes = 0
    _unparsed_bytes = 0
    """Of a body that the parser leaves to another protocol, and that is read as it comes."""
    _running: RequestResponseCycle | None = None
    """The request that is being answered; others may wait behind it."""
    _is_deaf = False
    """Whether the client has said something after which nothing can be understood."""
    _deadline: TimerHandle | None = None
    _gathering: Gathering | None = None
    _answers: WholeAnswers
    _unread: UnreadAnswers

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._answers = WholeAnswers(transport, self.loop)
        self.transport = cast(Transport, self._answers)
        self._unread = UnreadAnswers(self.transport, self.loop, self.timeout_s)
        if len(self.connections) > self.max_connections:
            (self.app,) = self.app_when_full
        self._expect_header()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._unset_keepalive_if_required()
        began_in, num_before = self._part, self._num_begun
        try:
            self._feed(data)
            self._count_header(len(data), began_in, self._num_begun - num_before)
        except (httptools.HttpParserError, NoRequestError) as error:
            self._refuse(reason_of(error))
            return
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._unread.stop()
        self._stop_gathering()
        self.pipeline.clear()
        if self._running is not None:  # uvicorn tells the newest request only
            _tell_gone(self._running)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part = Part.HEADER
        self._num_begun += 1
        self._header_bytes = self._num_pieces = self._num_bytes = 0

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEADER_BYTES:
            raise NoRequestError(f"the header has more than {HEADER_BYTES} bytes")
        if len(self.pipeline) >= MOST_WAITING:
            raise NoRequestError(f"more than {MOST_WAITING} requests wait for the answer to an earlier one")
        self._part = Part.BODY
        self._unparsed_bytes = self._length_behind_upgrade()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._num_pieces += 1
        self._num_bytes += len(body)
        if self._num_pieces > MOST_PIECES and self._num_bytes < SMALLEST_MEAN_BYTES * self._num_pieces:
            raise NoRequestError("the body comes in too many tiny chunks")
        if self._gathering is None:
            super().on_body(body)
        else:
            self._gathering.pieces.append(body)  # it is known to be short: reading need not pause

    def on_message_complete(self) -> None:
        if self._unparsed_bytes:  # that is what the parser thinks
            return
        self._part = Part.END
        super().on_message_complete()
        self._begin_gathered()

    def on_response_complete(self) -> None:
        self._answers.send()
        self._unread.watch()
        if self._part is Part.BODY and self.cycle is self._running:
            self._stop_waiting()
            self._deadline = self.loop.call_later(LONGEST_SKIP_S, self.transport.close)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread.stop()
        if not self._is_answering:
            self._unread.watch()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        cast(Scope, cycle.scope)[PRESENCE] = Presence(cycle.flow.resume_reading)
        length = short_length(cycle)
        # Behind another request its body may have begun to come, and is then read as it comes.
        is_coming = self._part is Part.BODY and cycle is self.cycle and not cycle.body
        if not is_coming or length is None or not self.gathered.has_room(length):
            super()._start_asgi_task(cycle, app)
            return
        timer = self.loop.call_later(GATHERING_S, self._begin_gathered)
        self._gathering = Gathering(cycle, app, length, timer)
        self.gathered.num_bytes += length

    def _begin_gathered(self) -> None:
        """Begin with a request whose body is there, or has been waited for long enough."""
        begun = self._stop_gathering()
        if begun is not None:
            begun.put_together(is_whole=not begun.cycle.more_body)
            super()._start_asgi_task(begun.cycle, begun.app)

    def _stop_gathering(self) -> Gathering | None:
        stopped, self._gathering = self._gathering, None
        if stopped is not None:
            stopped.timer.cancel()
            self.gathered.num_bytes -= stopped.length
        return stopped

    @property
    def _unanswered(self) -> RequestResponseCycle | None:
        """The request that is being answered now."""
        return None if self._running is None or self._running.response_complete else self._running

    @property
    def _is_answering(self) -> bool:
        return self._unanswered is not None

    def _feed(self, data: bytes) -> None:
        """Read on also behind a request for another protocol, which is answered as if it had not asked."""
        rest = memoryview(data)
        while rest:
            if self._unparsed_bytes:
                rest = self._take_unparsed(rest)
                continue
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                (offset,) = upgrade.args
                rest = rest[max(offset, 1) :]
            else:
                return

    def _length_behind_upgrade(self) -> int:
        """Return how long a body is that the parser will not read, for its request asks for another protocol.

        Many clients ask so with their first request, whatever it is: to them this is an ordinary body, and to
        read it as the next request would let somebody hide one in it.
        """
        if not self.parser.should_upgrade():
            return 0
        values = dict(self.headers)
        if b"transfer-encoding" in values:
            raise NoRequestError("a request for another protocol has to say how long its body is")
        return int(values.get(b"content-length", 0))

    def _take_unparsed(self, rest: memoryview) -> memoryview:
        """Take what belongs to the body; return what does not."""
        piece, behind = rest[: self._unparsed_bytes], rest[self._unparsed_bytes :]
        self._unparsed_bytes -= len(piece)
        self.on_body(bytes(piece))
        if not self._unparsed_bytes:
            self.on_message_complete()
        return behind

    def _count_header(self, num_bytes: int, began_in: Part, num_begun: int) -> None:
        """Count what belongs to a header that is not complete, as far as it is known to be nothing else."""
        alone = num_begun == 0 if began_in is Part.HEADER else began_in is Part.END and num_begun == 1
        if self._part is Part.HEADER and alone:
            self._header_bytes += num_bytes
            if self._header_bytes > HEADER_BYTES:
                raise NoRequestError(f"the header has more than {HEADER_BYTES} bytes")

    def _refuse(self, reason: str) -> None:
        """End a connection; the client is told why where that cannot be taken for the answer to a request."""
        self._is_deaf = True
        self._stop_waiting()
        self.logger.warning("Invalid HTTP request received.")
        unanswered = self._unanswered
        if unanswered is not None and not (self._part is Part.BODY and self.cycle is unanswered):
            self.pipeline.clear()
            unanswered.keep_alive = False
            return
        if unanswered is None or not unanswered.response_started:
            self.transport.write(bad_request(reason))
        if unanswered is not None:
            _tell_gone(unanswered)
        self.transport.close()

    def _set_deadline(self) -> None:
        """Decide how long the client may be silent now."""
        if self._part is Part.BODY:
            if not self.cycle.response_complete:  # its body has a limit of its own
                self._stop_waiting()
        elif self._part is Part.HEADER or not self._is_answering:
            self._expect_header()
        else:
            self._stop_waiting()

    def _expect_header(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.timeout_s, self._give_up)

    def _give_up(self) -> None:
        self._deadline = None
        if self._is_answering:
            self._expect_header()
        else:
            self.transport.close()

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def patient_protocol(timeout_s: float, max_connections: int, app_when_full: ASGIApp) -> type[PatientProtocol]:
    """Return the protocol with these bounds: uvicorn makes its instances itself."""
    bounds = {
        "timeout_s": timeout_s,
        "max_connections": max_connections,
        "app_when_full": (app_when_full,),
        "gathered": Gathered(),
    }
    return type("BoundedProtocol", (PatientProtocol,), bounds)


def _tell_gone(cycle: RequestResponseCycle) -> None:
    """Let an application know that nobody waits for its answer."""
    if not cycle.response_complete:
        cycle.disconnected = True
        cycle.message_event.set()
        cast(Scope, cycle.scope)[PRESENCE].leave()
