"""What a trusted proxy says about its client: address, scheme and host. Nobody else is believed."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from app.address import host_name, is_loopback
from app.settings import EVERYBODY

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
SCHEMES = frozenset({"http", "https"})
ALL_NETWORKS = ("0.0.0.0/0", "::/0")


class TrustedProxies:
    """Lets a request look as it did before its proxies, from the one that is connected to us outwards."""

    def __init__(self, app: ASGIApp, *, trusted: Sequence[str]) -> None:
        self.app = app
        names = [name for each in trusted for name in (ALL_NETWORKS if each == EVERYBODY else (each,))]
        self._networks = [ipaddress.ip_network(name, strict=False) for name in names]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._trusts(_address(scope["client"])):
            self._believe(scope)
        await self.app(scope, receive, send)

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)

    def _believe(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        client = self._client(_values(headers, "x-forwarded-for"))
        if client is not None:
            scope["client"] = (str(client), 0)
        scheme = _nearest(headers, "x-forwarded-proto").lower()
        if scheme in SCHEMES:
            scope["scheme"] = scheme
        host = _nearest(headers, "x-forwarded-host")
        if host and not is_loopback(host_name(host) or ""):  # nobody comes to us from there through a proxy
            MutableHeaders(scope=scope)["host"] = host

    def _client(self, hops: Sequence[str]) -> Address | None:
        """Return the nearest address that is no proxy of ours: what is said beyond it is hearsay."""
        client: Address | None = None
        for hop in reversed(hops):
            address = _address((hop, 0))
            if address is None:
                break
            client = address
            if not self._trusts(address):
                break
        return client


def _values(headers: Headers, name: str) -> list[str]:
    return [value.strip() for value in ",".join(headers.getlist(name)).split(",")]


def _nearest(headers: Headers, name: str) -> str:
    """Return what the proxy that is connected to us has said, not what came to it."""
    return _values(headers, name)[-1]


def _address(client: tuple[str, int] | None) -> Address | None:
    """Return an address that may carry a port and brackets; None when it is none."""
    host = client[0] if client is not None else ""
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
