"""Content negotiation, as far as `/detect` needs it: a picture only for those who ask for a JPEG."""

from __future__ import annotations

from python_multipart.multipart import parse_options_header

JPEG = ("image/jpeg", "image/jpg", "image/*")
JSON = ("application/json", "application/*")


def wants_jpeg(accept: str) -> bool:
    """Return whether an Accept header prefers a JPEG; everything else is answered with JSON."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        kind, options = parse_options_header(part.strip())
        weights[kind.decode("latin-1").lower()] = _weight(options.get(b"q", b"1"))
    jpeg = max((weights.get(kind, 0.0) for kind in JPEG), default=0.0)
    return jpeg > max(weights.get(kind, 0.0) for kind in JSON)


def _weight(text: bytes) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0
