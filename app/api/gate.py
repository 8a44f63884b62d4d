"""Who may talk to the service: host names, other web sites, API keys, and how often."""

from __future__ import annotations

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.types import Scope

from app.address import host_name, is_loopback
from app.api.context import route_path
from app.api.docs import PATHS as DOCUMENTATION_PATHS
from app.api.good_keys import GoodKeys
from app.api.health import PATHS as HEALTH_PATHS
from app.api.rate_limit import RateLimit
from app.database.changes import Changes
from app.database.fresh import Fresh
from app.database.session import Sessions
from app.database.tables import ApiKey
from app.errors import CrossSiteError, HarrierError, HostNotAllowedError, UnauthorizedError
from app.keys.service import (
    AT_HOME,
    Caller,
    KeyMark,
    caller_of,
    find_key,
    is_use_unnoted,
    keys_are_needed,
    note_use,
)
from app.settings import Settings
from app.web.routes import PATHS as PAGE_PATHS

PUBLIC = frozenset({"/openapi.json", *HEALTH_PATHS, *DOCUMENTATION_PATHS, *PAGE_PATHS})
NO_GOOD_KEY = (
    "the key is missing, not known, has expired or was revoked; "
    "send a valid one as `Authorization: Bearer KEY`, with the word `Bearer`, or as `X-API-Key: KEY`"
)
"""One text for all of these: nobody learns which keys there have been."""
USUAL_PORTS = {"http": ":80", "https": ":443"}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Gate:
    """Says of a request who sent it, or why nobody may come in with it."""

    def __init__(
        self, *, settings: Settings, sessions: Sessions, reading: Sessions, changes: Changes
    ) -> None:
        self._settings, self._sessions, self._reading = settings, sessions, reading
        self._keys = Fresh(self._find_key, changes)
        self._keys_needed = keys_are_needed(settings)
        per_minute = settings.max_requests_per_minute
        self._rate = RateLimit(per_minute) if per_minute is not None else None
        self._good_keys = GoodKeys()

    async def judge(self, scope: Scope, headers: Headers) -> Caller | HarrierError:
        """Return who asks, or the answer to who may not; what is asked too often is refused as well."""
        refused = self._host_refusal(headers) or self._cross_site_refusal(scope, headers)
        return refused or await self.admit(scope, secret_of(headers))

    async def admit(self, scope: Scope, secret: str | None) -> Caller | HarrierError:
        """As `judge`, of a request whose host is known, and that no other web site has sent."""
        if route_path(scope) in PUBLIC:
            return AT_HOME
        if self._rate is None:
            return await self._caller(secret)
        return await self._counted(self._rate, _address(scope), secret)

    def answers_to(self, host: str) -> bool:
        """Return whether a Host header names this server."""
        name = host_name(host)
        if name is None:
            return False
        allowed = self._settings.allowed_hosts
        return name in allowed or ("*" in allowed and self._keys_needed) or is_loopback(name)

    def _host_refusal(self, headers: Headers) -> HarrierError | None:
        """An open server answers to its own names only: a page that renames itself stays outside."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) is None:
            return HostNotAllowedError("the Host header is missing or is no host name")
        if self.answers_to(hosts[0]):
            return None
        return HostNotAllowedError("this server does not answer to that name; see HARRIER_ALLOWED_HOSTS")

    def _cross_site_refusal(self, scope: Scope, headers: Headers) -> HarrierError | None:
        """Without keys a browser is no proof of its user's will: other sites may not write through it."""
        origin = headers.get("origin")
        if self._keys_needed or origin is None or scope["method"] in SAFE_METHODS:
            return None
        here = f"{scope['scheme']}://{headers['host']}"
        if origin in self._settings.cors_origins or _site(origin) == _site(here):
            return None
        return CrossSiteError(
            "another web site asked for this; see HARRIER_CORS_ORIGINS, and HARRIER_TRUSTED_PROXIES "
            "when a proxy stands before this server"
        )

    async def _counted(self, rate: RateLimit, address: str, secret: str | None) -> Caller | HarrierError:
        """Count a request for its key, or for its address when it has none that is good."""
        refused = None if self._good_keys.has(secret) else rate.would_refuse(address)
        if refused is not None:  # before the database is asked: guessing costs us nothing
            return refused
        caller = await self._caller(secret)
        key_id = caller.id if isinstance(caller, Caller) else ""
        self._good_keys.note(secret, is_good=bool(key_id))
        return rate.refusal(f"key {key_id}" if key_id else address) or caller

    def _find_key(self, mark: KeyMark) -> ApiKey | None:
        return find_key(self._reading, mark)

    async def _caller(self, secret: str | None) -> Caller | HarrierError:
        if secret is None and not self._keys_needed:
            return AT_HOME
        key = await self._keys.get(KeyMark.of(secret or ""))
        caller = caller_of(key)
        if key is not None and caller is not None and is_use_unnoted(key):
            await to_thread.run_sync(note_use, self._sessions, key)
        return caller or UnauthorizedError(NO_GOOD_KEY)


def _site(origin: str) -> str:
    """Return an origin as browsers write it: in lower case, without the port that is understood."""
    scheme, _, host = origin.lower().partition("://")
    return f"{scheme}://{host.removesuffix(USUAL_PORTS.get(scheme, ''))}"


def _address(scope: Scope) -> str:
    """Return whose requests are counted together when no key tells them apart."""
    host, _ = scope["client"] or ("unknown", 0)
    return f"address {host}"


def secret_of(headers: Headers) -> str | None:
    """Return the key that a request brings; None when it brings none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return headers.get("x-api-key") or (headers.get("authorization") and "")
