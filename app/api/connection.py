"""HTTP as a hostile client speaks it: bounds that belong to the connection, not to a request."""

from __future__ import annotations

import json
from typing import Any

import h11

from app.api.problems import MEDIA_TYPE, problem_body
from app.database.tables import new_id
from app.errors import BadRequestError

MOST_PIECES = 20_000
"""More chunks than this are suspicious; they must then be worth the work of reading them."""
SMALLEST_MEAN_BYTES = 64


class FrugalConnection(h11.Connection):
    """Refuses a body in a million tiny chunks: each costs as much to read as a large one."""

    _num_pieces = _num_bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._num_pieces = self._num_bytes = 0
        if isinstance(event, h11.Data):
            self._num_pieces += 1
            self._num_bytes += len(event.data)
            if self._num_pieces > MOST_PIECES and self._num_bytes < SMALLEST_MEAN_BYTES * self._num_pieces:
                raise h11.RemoteProtocolError("the body comes in too many tiny chunks", 400)
        return event


def bad_request(connection: h11.Connection, detail: str) -> bytes:
    """Return what to send to a client whose words are no HTTP; nothing when its answer has begun already."""
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return b""
    request_id = new_id()
    body = json.dumps(problem_body(BadRequestError(detail), request_id)).encode()
    headers = [
        ("Content-Type", MEDIA_TYPE),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        ("X-Request-ID", request_id),
    ]
    answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
    events = (answer, h11.Data(data=body), h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)
