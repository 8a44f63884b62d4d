"""Content negotiation (RFC 9110, 12.5.1): which form of answer an Accept header wants most."""

from __future__ import annotations

import re
from functools import lru_cache

from python_multipart.multipart import parse_options_header

from app.detect.formats import ALL, FORMATS, NATIVE, AnswerFormat
from app.errors import NotAcceptableError

MOST_REMEMBERED = 64
ANYTHING = "*/*"
_PARTS = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*+"?)++')
"""What stands between commas that are not quoted."""
_RANGE = re.compile(r"[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+", re.ASCII)

Ranges = dict[str, float]
"""How much is wanted what: `type/subtype`, `type/subtype;profile=NAME`, `type/*` or `*/*`."""


@lru_cache(maxsize=MOST_REMEMBERED)
def choose_format(accept: str, *, several: bool) -> AnswerFormat:
    """Return the form of the answer to a request with this header and one picture, or several.

    Of two that are wanted equally the one that is named more exactly wins, and then Harrier's own order.

    Raises:
        NotAcceptableError: none of what the header takes can hold the answer.
    """
    ranges = _ranges_of(accept)
    if not ranges:
        return NATIVE
    wanted = {name: _wanted(name, ranges) for name in FORMATS}
    takes = [name for name, (weight, _) in wanted.items() if weight > 0]
    fitting = [name for name in takes if FORMATS[name].holds_several or not several]
    if not fitting:
        raise NotAcceptableError(_complaint(takes))
    return FORMATS[max(fitting, key=wanted.__getitem__)]


def _ranges_of(accept: str) -> Ranges:
    """Return what a header names. What is malformed in it names nothing; a header of nothing takes all."""
    ranges: Ranges = {}
    for part in _PARTS.findall(accept):
        kind, options = parse_options_header(part.strip())
        name, weight = kind.decode("latin-1").lower(), _weight(options.get(b"q", b"1"))
        if weight is None or not _RANGE.fullmatch(name):
            continue
        profile = options.get(b"profile", b"").decode("latin-1").lower()
        ranges[f"{name};profile={profile}" if profile else name] = weight
    return ranges


def _weight(text: bytes) -> float | None:
    try:
        weight = float(text)
    except ValueError:
        return None
    return weight if 0.0 <= weight <= 1.0 else None


def _wanted(name: str, ranges: Ranges) -> tuple[float, int]:
    """Return how much a form is wanted by one of its names, and how exactly it is named."""
    for exactness, key in ((2, name), (1, f"{name.partition('/')[0]}/*"), (0, ANYTHING)):
        if key in ranges:
            return ranges[key], exactness
    return 0.0, 0


def _complaint(takes: list[str]) -> str:
    known = ", ".join(form.media_type for form in ALL if form.holds_several or not takes)
    if takes:
        names = " or ".join(dict.fromkeys(FORMATS[name].media_type for name in takes))
        return f"{names} holds the answer to one picture; send one, or ask for another of {known}"
    return f"none of what Accept names can be had; there is {known}"
