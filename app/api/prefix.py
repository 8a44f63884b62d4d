"""The prefix under which a proxy publishes the API: taken from what comes, put before what leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.links import published, published_under


class PrefixError(Exception):
    """With this prefix nobody could tell a path that has it from one of ours."""


class Prefix:
    """Serves proxies that take the prefix off as well as those that keep it."""

    def __init__(self, app: ASGIApp, *, prefix: str) -> None:
        self.app, self.prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] == self.prefix:  # the relative addresses of a page would lead beside it
            await RedirectResponse(_with_slash(scope))(scope, receive, send)
            return
        if not scope["path"].startswith(f"{self.prefix}/"):
            scope["path"] = self.prefix + scope["path"]
        scope["root_path"] = self.prefix
        with published_under(self.prefix):
            await self.app(scope, receive, _publishing(send))


def _with_slash(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    return f"{scope['path']}/?{query}" if query else f"{scope['path']}/"


def _publishing(send: Send) -> Send:
    async def send_published(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if headers.get("location", "").startswith("/"):
                headers["location"] = published(headers["location"])
        await send(message)

    return send_published


def check_prefix(prefix: str, paths: Iterable[str]) -> None:
    """Refuse a prefix that one of our paths begins with.

    Raises:
        PrefixError: it does.
    """
    for path in paths:
        if _may_begin(path.split("/"), prefix.split("/")):
            raise PrefixError(f"HARRIER_ROOT_PATH={prefix} cannot be told from {path}; choose another prefix")


def _may_begin(template: Sequence[str], prefix: Sequence[str]) -> bool:
    """Return whether a path of this template can begin with the prefix; `{id}` may be anything."""
    same = (ours == theirs or ours.startswith("{") for ours, theirs in zip(template, prefix, strict=False))
    return len(template) >= len(prefix) and all(same)
