"""Test-time augmentation as requests ask for it: `true`, or scales and flips."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from app.api.shapes import Wish
from app.api.strict_json import strict_json
from detection.inference.passes import (
    DEFAULT_FLIPS,
    DEFAULT_SCALES,
    MAX_PASSES,
    MAX_SCALE,
    MIN_SCALE,
    TtaPass,
    check_cost,
    passes_of,
)

Scale = Annotated[float, Field(strict=True, ge=MIN_SCALE, le=MAX_SCALE, allow_inf_nan=False)]
DEFAULT = {"scales": list(DEFAULT_SCALES), "flips": [flip.value for flip in DEFAULT_FLIPS]}
WAYS = 'should be `true`, `false`, or an object such as {"scales": [1, 0.83], "flips": ["none", "lr"]}'
WORDS = {"true": True, "false": False}


def _affordable(scales: list[float]) -> list[float]:
    check_cost(scales)
    return scales


class TtaWish(Wish):
    """The passes over a picture: one for each scale, with the flip in the same place."""

    scales: Annotated[list[Scale], Field(min_length=1, max_length=MAX_PASSES), AfterValidator(_affordable)]
    """Of the network's input. Their squares add up to 8 at most: that is what the passes cost together."""
    flips: Annotated[list[Literal["none", "lr", "ud"]], Field(max_length=MAX_PASSES)] = []
    """Left-right, up-down or none; without any, no pass is flipped."""

    @model_validator(mode="after")
    def _make_sense(self) -> TtaWish:
        self.flips = self.flips or ["none"] * len(self.scales)
        passes_of(self.scales, self.flips)
        return self

    @property
    def passes(self) -> tuple[TtaPass, ...]:
        return passes_of(self.scales, self.flips)


def _spelled_out(value: Any) -> Any:
    """Return what `true` and `false` stand for; everything else is an object or a fault."""
    if isinstance(value, bool):
        return DEFAULT if value else None
    if value is None or isinstance(value, dict | TtaWish):
        return value
    raise ValueError(WAYS)


def _read(text: Any) -> Any:
    """A query and a form have only texts: a word or JSON."""
    if not isinstance(text, str):
        return text
    word = text.strip().lower()
    if word in WORDS:
        return WORDS[word]
    try:
        return strict_json(text.encode())
    except ValueError:
        raise ValueError(WAYS) from None


_OBJECT = TtaWish.model_json_schema()
_IN_JSON = WithJsonSchema({"anyOf": [{"type": "boolean"}, _OBJECT, {"type": "null"}]})
_AS_TEXT = WithJsonSchema(
    {
        "anyOf": [
            {"type": "boolean"},
            {"type": "string", "contentMediaType": "application/json", "contentSchema": _OBJECT},
        ]
    }
)
Tta = Annotated[TtaWish | None, BeforeValidator(_spelled_out), _IN_JSON]
"""In a JSON body; None is one plain pass."""
TtaText = Annotated[TtaWish | None, BeforeValidator(_spelled_out), BeforeValidator(_read), _AS_TEXT]
"""In a query or a form."""
