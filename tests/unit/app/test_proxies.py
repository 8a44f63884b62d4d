"""What a proxy says counts if it is trusted, up to the first that is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.types import Message, Receive, Scope, Send

from app.api.proxies import TrustedProxies
from app.settings import Settings


def seen(peer: str | None, trusted: list[str], **headers: str) -> dict[str, Any]:
    """Return what the application sees of a request."""
    scope: Scope = {
        "type": "http",
        "scheme": "http",
        "client": (peer, 1234) if peer is not None else None,
        "headers": [
            (b"host", b"inner"),
            *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
        ],
    }

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing is answered."""

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        """Nothing is sent."""

    asyncio.run(TrustedProxies(app, trusted=trusted)(scope, receive, send))
    client = scope["client"][0] if scope["client"] else None
    return {"client": client, "scheme": scope["scheme"], "host": dict(scope["headers"])[b"host"].decode()}


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.0.0.7, 10.0.0.8", "203.0.113.9"),
        ("10.0.0.7", "10.0.0.7"),
        ("203.0.113.9, unknown, 10.0.0.8", "10.0.0.8"),
        ("nonsense", "10.0.0.2"),
        ("", "10.0.0.2"),
    ],
)
def test_the_client_is_the_nearest_that_is_no_proxy_of_ours(forwarded: str, client: str) -> None:
    assert seen("10.0.0.2", ["10.0.0.0/8"], x_forwarded_for=forwarded)["client"] == client


@pytest.mark.parametrize("peer", ["203.0.113.1", None, "::1"])
def test_a_stranger_changes_nothing(peer: str | None) -> None:
    said = {"x_forwarded_for": "1.1.1.1", "x_forwarded_proto": "https", "x_forwarded_host": "evil.example"}
    assert seen(peer, ["10.0.0.0/8"], **said) == {"client": peer, "scheme": "http", "host": "inner"}


@pytest.mark.parametrize("peer", ["10.0.0.2", "::ffff:10.0.0.2"])
def test_a_proxy_is_known_by_address_or_network(peer: str) -> None:
    for trusted in (["10.0.0.2"], ["10.0.0.0/8"], ["*"], ["::1", "10.0.0.2"]):
        found = seen(peer, trusted, x_forwarded_proto="HTTPS", x_forwarded_host="vision.example")
        assert (found["scheme"], found["host"]) == ("https", "vision.example")


def test_the_last_word_is_that_of_the_nearest_proxy() -> None:
    said = {"x_forwarded_proto": "gopher, https", "x_forwarded_host": "evil.example, vision.example"}
    found = seen("10.0.0.2", ["10.0.0.2"], **said)
    assert (found["scheme"], found["host"]) == ("https", "vision.example")
    assert seen("10.0.0.2", ["10.0.0.2"], x_forwarded_proto="gopher")["scheme"] == "http"


@pytest.mark.parametrize("said", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000"])
def test_no_proxy_makes_a_name_of_this_machine_out_of_another(said: str) -> None:
    assert seen("10.0.0.2", ["10.0.0.2"], x_forwarded_host=said)["host"] == "inner"


@pytest.mark.parametrize(
    "values", [{"trusted_proxies": "10.0.0.0/99"}, {"trusted_proxies": "proxy"}, {"root_path": "/a b"}]
)
def test_what_cannot_be_meant_is_refused_at_the_start(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Settings(**values, _env_file=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["vision", "/vision", "/vision/", "vision/"])
def test_a_prefix_is_read_as_it_is_meant(given: str) -> None:
    assert Settings(root_path=given, _env_file=None).root_path == "/vision"
    assert Settings(root_path="/", _env_file=None).root_path == ""
