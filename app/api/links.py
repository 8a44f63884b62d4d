"""Addresses in answers: paths of ours, under the prefix by which the client of the request knows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated

from pydantic import PlainSerializer

_prefix: ContextVar[str] = ContextVar("prefix", default="")


def published(path: str) -> str:
    """Return the address of a path of ours, as the client of the present request asks for it."""
    return _prefix.get() + path


def published_links(links: Mapping[str, str]) -> dict[str, str]:
    return {name: published(path) for name, path in links.items()}


Links = Annotated[dict[str, str], PlainSerializer(published_links)]
"""Where to go on. Everywhere but in the written answer these are paths of ours, without a prefix."""


@contextmanager
def published_under(prefix: str) -> Iterator[None]:
    """Let everything that is answered within have this prefix."""
    token = _prefix.set(prefix)
    try:
        yield
    finally:
        _prefix.reset(token)
