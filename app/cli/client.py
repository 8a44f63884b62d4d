"""The HTTP client of the commands: every error becomes one clear message and exit status 1."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import httpx2

from app.address import is_loopback, server_address
from app.settings import Settings

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 120.0
PAGE = 200
BUSY = 503
LISTINGS = {
    "jobs": "harrier jobs list",
    "models": "harrier models list",
    "datasets": "harrier datasets list",
    "train": "harrier datasets list`, `harrier models list",
    "detect": "harrier models list",
}
"""Where the ids come from that a call wants, by the first part of its path."""
RETRIES = 10
AS_THEY_ARE: Mapping[str, str] = MappingProxyType({})
"""Fields of a body are called here what the API calls them."""
NAME = re.compile(r"`(\w+)`")
"""How messages of the API write the name of a field."""


class CommandError(Exception):
    """The command failed; the message is for the person who typed it."""


class Api:
    """A Harrier server, as the commands use it."""

    def __init__(self, settings: Settings, *, transport: httpx2.BaseTransport | None = None) -> None:
        self.address = (settings.url or server_address(settings)).rstrip("/")
        url = _checked(self.address)
        self._http = httpx2.Client(
            base_url=url,
            headers={"User-Agent": "harrier-cli", **_credentials(settings)},
            timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=not is_loopback(url.host),  # a proxy cannot reach this machine by that name
            transport=transport,
        )

    def get(self, path: str, **options: Any) -> Any:
        return _document(self.send("GET", path, **options))

    def post(self, path: str, *, called: Mapping[str, str] = AS_THEY_ARE, **options: Any) -> Any:
        """Return the document of a good answer.

        Args:
            called: what the command calls fields of the body: an error speaks of those.

        Raises:
            CommandError: nobody answers, or the answer is an error.
        """
        response = self.ask("POST", path, **options)
        _raise_problem(response, called)
        return _document(response)

    def patch(self, path: str, **options: Any) -> None:
        self.send("PATCH", path, **options)

    def send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Return the answer to a request.

        Raises:
            CommandError: nobody answers, or the answer is an error.
        """
        response = self.ask(method, path, **options)
        _raise_problem(response)
        return response

    def ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Return the answer to a request, also when it is an error."""
        with self._speaking():
            return self._http.request(method, path, **options)

    def ask_patiently(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Return the answer to a request that may be sent again; a busy server is asked later."""
        response = self.ask(method, path, **options)
        for _ in range(RETRIES):
            if response.status_code != BUSY:
                break
            time.sleep(float(response.headers.get("Retry-After", "1")))
            response = self.ask(method, path, **options)
        return response

    @contextmanager
    def stream(self, path: str, **options: Any) -> Iterator[httpx2.Response]:
        """Yield an answer whose body has not been read yet."""
        with self._speaking(), self._http.stream("GET", path, **options) as response:
            if response.is_error:
                response.read()
            _raise_problem(response)
            yield response

    @contextmanager
    def events(self, path: str, *, quiet_s: float) -> Iterator[Iterator[httpx2.ServerSentEvent]]:
        """Yield the events of a stream; httpx2.HTTPError when it breaks, or is silent for `quiet_s`."""
        with self._http.sse(path, timeout=httpx2.Timeout(quiet_s, connect=CONNECT_TIMEOUT_S)) as source:
            source.response.raise_for_status()
            yield iter(source)

    def pages(self, path: str, *, limit: int, **parameters: Any) -> list[dict[str, Any]]:
        """Return the newest `limit` rows of a list."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(rows) < limit:
            asked = {**parameters, "limit": min(limit - len(rows), PAGE), "cursor": cursor}
            page = self.get(path, params={name: value for name, value in asked.items() if value is not None})
            rows += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return rows

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise CommandError(
                f"no Harrier server answers at {self.address} ({error}).\n"
                "Start one with `harrier serve`, or name another with HARRIER_URL"
            ) from None
        except httpx2.HTTPError as error:
            raise CommandError(f"the server at {self.address} broke off: {error}") from None


def _checked(address: str) -> httpx2.URL:
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL as error:
        raise CommandError(f"HARRIER_URL is no address: {error}") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise CommandError(f"HARRIER_URL must be like http://host:8000, and is {address!r}")
    return url


def _credentials(settings: Settings) -> dict[str, str]:
    if settings.api_key is None:
        return {}
    key = settings.api_key.get_secret_value()
    if not key.isascii() or not key.isprintable():
        raise CommandError("HARRIER_API_KEY holds characters that no key has; copy it anew")
    return {"Authorization": f"Bearer {key}"}


def _document(response: httpx2.Response) -> Any:
    """Return the JSON of a good answer."""
    try:
        return response.json()
    except ValueError:
        raise CommandError(f"what answers at {response.url} is no Harrier server") from None


def _raise_problem(response: httpx2.Response, called: Mapping[str, str] = AS_THEY_ARE) -> None:
    if response.is_success:
        return
    raise CommandError(problem_text(response, called))


def problem_code(response: httpx2.Response) -> str | None:
    """Return the code of an error answer; None when it is not one of Harrier's."""
    if "json" not in response.headers.get("content-type", ""):
        return None
    code: str | None = response.json().get("code")
    return code


def problem_text(response: httpx2.Response, called: Mapping[str, str] = AS_THEY_ARE) -> str:
    """Return an error answer in words: problem+json, or whatever came instead.

    Args:
        called: what fields of the request's body are called where it was typed.
    """
    code = problem_code(response)
    if code is None:
        start = " ".join(response.text[:200].split())
        return f"{response.status_code} {response.reason_phrase} from {response.url}, not by Harrier: {start}"
    problem = _in_own_words(response.json(), called)
    detail, faults = problem.get("detail", ""), problem.get("errors", [])
    lines = [f"{_said_once(problem.get('title', 'Error'), detail)}  [{code}]"]
    for fault in faults if len(faults) != 1 or faults[0]["problem"] not in detail else ():
        lines.append(f"  {_place(fault)}: {fault.get('problem')}")
    for name, link in problem.get("links", {}).items():
        lines.append(f"  {name}: {link}")
    if advice := _advice(code, response.request.url.path):
        lines.append(advice)
    return "\n".join(lines)


def _said_once(title: str, detail: str) -> str:
    """Join what kind of error it is and what it is; often the one begins with the words of the other."""
    if detail.lower().startswith(title.lower()):
        return title + detail[len(title) :]
    return f"{title}: {detail}"


def as_options(*fields: str) -> dict[str, str]:
    """Return the options that are called like fields of a body: `p95_ms` is `--p95-ms`."""
    return {field: f"--{field.replace('_', '-')}" for field in fields}


def _in_own_words(problem: Mapping[str, Any], called: Mapping[str, str]) -> dict[str, Any]:
    """Return a problem whose pointers, and names in its texts, are those that were typed."""

    def name(text: str) -> str:
        return NAME.sub(lambda found: f"`{called.get(found[1], found[1])}`", text)

    detail, faults = str(problem.get("detail", "")), []
    for fault in problem.get("errors", []):
        own = called.get((fault.get("pointer") or "").removeprefix("/"))
        said = str(fault.get("problem", ""))
        named = fault if own is None else {**fault, "pointer": own}
        detail = detail.replace(f"{_place(fault)}: {said}", f"{_place(named)}: {said}")
        faults.append({**named, "problem": name(said)})
    return {**problem, "detail": name(detail), "errors": faults}


def _place(fault: Mapping[str, Any]) -> str:
    """Return where in the request a fault is."""
    return str(fault.get("pointer") or fault.get("place"))


def _advice(code: str, path: str) -> str | None:
    """Return what to do about an error that comes from what was typed."""
    if code == "unauthorized":
        return "Send a key with HARRIER_API_KEY=…; on the server `harrier keys create NAME` makes one"
    listing = LISTINGS.get(path.split("/")[1])
    return f"What there is: `{listing}`" if code == "not_found" and listing else None
