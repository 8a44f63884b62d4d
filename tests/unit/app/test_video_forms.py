"""A form that holds a video: it takes no room for pictures, and may be longer than they may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.api.multipart import PartHead
from app.detect.bodies import DetectRequest, read_request
from app.detect.schemas import DetectParameters
from app.errors import InvalidInputError, PayloadTooLargeError
from app.settings import Settings

FORM = {"content-type": "multipart/form-data; boundary=edge"}
SETTINGS = Settings(max_detect_bytes=400, max_image_bytes=300, _env_file=None)


class Sent:
    """A request whose form comes in pieces."""

    headers = FORM

    def __init__(self, field: str, num_pieces: int) -> None:
        self._field, self._num_pieces = field, num_pieces

    async def stream(self) -> AsyncIterator[bytes]:
        yield b'--edge\r\nContent-Disposition: form-data; name="every"\r\n\r\n3\r\n--edge\r\n'
        yield f'Content-Disposition: form-data; name="{self._field}"; filename="a"\r\n\r\n'.encode()
        for _ in range(self._num_pieces):
            yield bytes(100)
        yield b"\r\n--edge--\r\n"


class Disk:
    """Takes a video."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self.is_open = False

    async def open(self, head: PartHead) -> Disk:
        self.is_open = True
        return self

    async def write(self, piece: bytes) -> None:
        self.num_bytes += len(piece)

    async def finish(self) -> None:
        """Nothing is left to do."""


def read(field: str, num_pieces: int, video: Disk | None) -> tuple[DetectRequest, int]:
    taken: list[int] = []
    request: Any = Sent(field, num_pieces)
    sent = asyncio.run(read_request(request, DetectParameters(), SETTINGS, taken.append, video))
    return sent, sum(taken)


def test_a_video_takes_no_room_and_may_be_long() -> None:
    video = Disk()
    sent, taken = read("video", 50, video)
    assert (sent.images, sent.parameters.every, video.num_bytes) == ([], 3, 5000)
    assert taken < 200


def test_pictures_may_not() -> None:
    with pytest.raises(PayloadTooLargeError, match="at most 400 bytes together"):
        read("image", 4, Disk())


@pytest.mark.parametrize(("field", "video"), [("video", None), ("movie", Disk())])
def test_other_files_are_refused(field: str, video: Disk | None) -> None:
    with pytest.raises(InvalidInputError, match=f"/{field}: no file is wanted here"):
        read(field, 1, video)


def test_a_picture_has_no_frames() -> None:
    with pytest.raises(InvalidInputError, match="/every: a picture has no frames"):
        read("image", 1, None)
