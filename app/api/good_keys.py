"""Keys that were good a moment ago: who guesses beside them, at the same address, does not lock them out."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

MOST_KEYS = 10_000


class GoodKeys:
    """Remembers hashes of secrets, never a secret; that a key is still good only the database knows."""

    def __init__(self) -> None:
        self._hashes: OrderedDict[bytes, None] = OrderedDict()

    def has(self, secret: str | None) -> bool:
        return secret is not None and _hash(secret) in self._hashes

    def note(self, secret: str | None, *, is_good: bool) -> None:
        """Remember what the database has said about a secret."""
        if secret is None:
            return
        self._hashes.pop(_hash(secret), None)
        if is_good:
            self._hashes[_hash(secret)] = None
        while len(self._hashes) > MOST_KEYS:
            self._hashes.popitem(last=False)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
