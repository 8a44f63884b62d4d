"""What a form of answer is: the names that ask for it, what it can hold, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.detect.wire import Detected
from app.errors import HarrierError


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found in the pictures of a request, before it has a form."""

    model_id: str
    images: Sequence[Detected | HarrierError]
    """In the order sent."""
    names: Sequence[str]
    """The file names of the pictures: empty where there is none, and no names at all if none has one."""
    request_id: str

    def name_of(self, place: int) -> str:
        """Return the file name of a picture, or else its place."""
        name = self.names[place] if self.names else ""
        return name or str(place)

    def failed(self) -> list[int]:
        """Return the places of the pictures that could not be used."""
        return [place for place, image in enumerate(self.images) if isinstance(image, HarrierError)]


class Drawing(StrEnum):
    """Whether the pictures come back with their boxes drawn."""

    NEVER = "never"
    IF_ASKED = "if_asked"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFormat:
    """One entry of the registry."""

    media_type: str
    also: tuple[str, ...] = ()
    """Other names that ask for it: media types, or `application/json;profile=NAME`."""
    encode: Callable[[Answer], bytes]
    """A single picture that failed never comes here: it is answered as the error it is."""
    holds_several: bool = True
    """Pictures in one answer."""
    drawing: Drawing = Drawing.NEVER
    schema: dict[str, Any]
    """Of an answer, for OpenAPI."""
    example: Any = None

    def draws(self, *, asked: bool) -> bool:
        """Return whether the engine has to draw."""
        return self.drawing is Drawing.ALWAYS or (asked and self.drawing is Drawing.IF_ASKED)

    def described(self) -> dict[str, Any]:
        """Return what OpenAPI says of it."""
        return {"schema": self.schema, **({} if self.example is None else {"example": self.example})}
