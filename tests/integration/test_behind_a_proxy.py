"""The real server behind a proxy: below a prefix, taken off or kept; and whose word it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.cli.client import Api
from app.database.upgrade import upgrade_database
from app.settings import Settings
from tests.published import add_model
from tests.serving import accepts_tcp, free_port, short_folder, wait_for

PREFIX = "/harrier"
STRIPPED, KEPT = "", PREFIX
"""What a proxy leaves before the path of a request below the prefix."""


class Server:
    """`python -m app.server` alone: no engine, no broker, no workers."""

    def __init__(self, home: Path, **values: Any) -> None:
        given = {"home": home, "port": free_port(), "log_json": True, **values}
        self.settings = Settings(**given)
        upgrade_database(self.settings)
        environment = {**os.environ, **{f"HARRIER_{name.upper()}": str(given[name]) for name in given}}
        self._log = home / "api.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.server"], env=environment, stdout=log, stderr=log
            )
        self.address = f"http://127.0.0.1:{self.settings.port}"
        wait_for(lambda: accepts_tcp(self.settings.port), 60)
        self.http = httpx2.Client(base_url=self.address, trust_env=False)

    def close(self) -> None:
        self.http.close()
        self.process.terminate()
        assert self.process.wait(20) in (0, -15)
        assert "Traceback" not in self._log.read_text()

    def request(self, request_id: str) -> dict[str, Any]:
        """Return the line about a request, which is written after its answer was sent."""
        wait_for(lambda: any(line["request_id"] == request_id for line in self._requests()), 20)
        return next(line for line in self._requests() if line["request_id"] == request_id)

    def _requests(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "request"]


@contextmanager
def running(**values: Any) -> Iterator[Server]:
    with short_folder() as folder:
        server = Server(folder, **values)
        try:
            yield server
        finally:
            server.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Below a prefix, with this machine as the trusted proxy."""
    with running(
        root_path=PREFIX,
        trusted_proxies="127.0.0.1",
        allowed_hosts="vision.example",
        max_requests_per_minute=500,
    ) as server:
        yield server


def upload(server: Server, left: str) -> Any:
    files = {"archive": ("cells.zip", b"PK\x03\x04" + bytes(100), "application/zip")}
    return server.http.post(f"{left}/datasets", files=files)


def addresses(value: object) -> Iterator[str]:
    """Yield every link in an answer."""
    if isinstance(value, dict):
        yield from value.get("links", {}).values()
        for part in value.values():
            yield from addresses(part)
    if isinstance(value, list):
        for part in value:
            yield from addresses(part)


@pytest.mark.parametrize("left", [STRIPPED, KEPT])
def test_every_address_in_an_answer_is_below_the_prefix(server: Server, left: str) -> None:
    answer = upload(server, left)
    assert answer.status_code == 202, answer.text
    dataset = answer.json()
    assert answer.headers["location"] == f"{PREFIX}/datasets/{dataset['id']}"
    assert dataset["links"]["self"] == f"{PREFIX}/datasets/{dataset['id']}"
    pages = [server.http.get(f"{left}{path}").json() for path in ("/datasets", "/jobs", "/architectures")]
    found = [*addresses(dataset), *addresses(pages)]
    assert len(found) > 10
    for address in found:
        assert address.startswith(f"{PREFIX}/"), address
        assert not address.startswith(f"{PREFIX}{PREFIX}")
    assert server.http.get(dataset["links"]["job"]).json()["kind"] == "dataset-import"


@pytest.mark.parametrize("left", [STRIPPED, KEPT])
def test_a_refusal_leads_below_the_prefix_too(server: Server, left: str) -> None:
    refused = server.http.post(f"{left}/train", json={"dataset_id": "x", "init": "pretrained"})
    assert refused.status_code == 404
    dataset = upload(server, left).json()
    in_use = server.http.delete(f"{left}/datasets/{dataset['id']}")
    assert in_use.status_code == 409
    assert in_use.json()["links"]["job"] == f"{PREFIX}/jobs/{dataset['job_id']}"


@pytest.mark.parametrize("left", [STRIPPED, KEPT])
def test_an_answer_that_is_replayed_has_its_prefix_once(server: Server, left: str) -> None:
    files = {"archive": ("cells.zip", b"PK\x03\x04" + bytes(100), "application/zip")}
    headers = {"Idempotency-Key": f"upload{left.replace('/', '-')}"}
    first, again = (server.http.post(f"{left}/datasets", files=files, headers=headers) for _ in range(2))
    assert again.headers["idempotency-replayed"] == "true"
    assert first.headers["location"] == again.headers["location"]
    assert first.json() == again.json()


@pytest.mark.parametrize("left", [STRIPPED, KEPT])
def test_the_documentation_is_found_from_every_way_in(server: Server, left: str) -> None:
    page = server.http.get(f"{left}/", headers={"Accept": "text/html"}).text
    for linked, path in (("docs", "docs"), ("page/start.js", "page/start.js")):
        assert f'"{linked}"' in page
        assert httpx2.URL(f"https://host{PREFIX}/").join(linked).path == f"{PREFIX}/{path}"
        assert server.http.get(f"{left}/{path}").status_code == 200
    assert "swagger-ui" in server.http.get(f"{left}/docs").text
    assert server.http.get(f"{left}/docs/swagger-ui.css").status_code == 200
    assert server.http.get(f"{left}/openapi.json").json()["servers"] == [{"url": PREFIX}]


def test_the_prefix_itself_leads_into_it(server: Server) -> None:
    answer = server.http.get(PREFIX)
    assert (answer.status_code, answer.headers["location"]) == (307, f"{PREFIX}/")
    with_query = server.http.get(f"{PREFIX}?x=1&y=a%20b")
    assert (with_query.status_code, with_query.headers["location"]) == (307, f"{PREFIX}/?x=1&y=a%20b")


@pytest.mark.parametrize("left", [STRIPPED, KEPT])
def test_the_thin_client_works_below_the_prefix(server: Server, left: str) -> None:
    upload(server, left)
    client = Api(Settings(home=server.settings.home, url=f"{server.address}{left}"))
    with closing(client._http):
        (newest,) = client.pages("/datasets", limit=1)
        assert client.get(f"/datasets/{newest['id']}")["id"] == newest["id"]


def test_a_trusted_proxy_says_who_asks_from_where(server: Server) -> None:
    said = {
        "X-Forwarded-For": "198.51.100.1, 203.0.113.9, 127.0.0.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "vision.example",
        "X-Request-ID": "trusted-1",
    }
    job_id = upload(server, STRIPPED).json()["job_id"]
    at_home = {**said, "Origin": "https://vision.example"}
    assert server.http.post(f"/jobs/{job_id}/cancel", headers=at_home).status_code == 202
    assert server.request("trusted-1")["client"] == "203.0.113.9"
    other_scheme = server.http.post(
        f"/jobs/{job_id}/cancel", headers={**said, "Origin": "http://vision.example"}
    )
    assert other_scheme.json()["code"] == "cross_site"
    other_host = server.http.get("/jobs", headers={**said, "X-Forwarded-Host": "evil.example"})
    assert other_host.json()["code"] == "host_not_allowed"


def test_nobody_else_is_believed() -> None:
    said = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Request-ID": "stranger-1",
    }
    with running(trusted_proxies="10.0.0.0/8", max_requests_per_minute=5) as server:
        address = server.address
        assert server.http.get("/jobs", headers=said).status_code == 200
        assert server.request("stranger-1")["client"] == "127.0.0.1"
        claimed = server.http.post("/train", json={}, headers={**said, "Origin": "https://evil.example"})
        assert claimed.json()["code"] == "cross_site"
        own = server.http.post("/train", json={}, headers={**said, "Origin": address})
        assert own.json()["code"] == "invalid_input"
        told = [
            server.http.get("/jobs", headers={**said, "X-Forwarded-For": f"203.0.113.{number}"}).status_code
            for number in range(6)
        ]
        assert 429 in told, "another address in the header must not be another caller"


def test_a_trusted_proxys_clients_are_counted_one_by_one() -> None:
    with running(trusted_proxies="127.0.0.0/8", max_requests_per_minute=3) as server:

        def ask(client: str) -> int:
            status: int = server.http.get("/jobs", headers={"X-Forwarded-For": client}).status_code
            return status

        assert [ask("203.0.113.1") for _ in range(4)] == [200, 200, 200, 429]
        assert ask("203.0.113.2") == 200


def test_head_says_what_get_would_without_sending_it() -> None:
    with running() as server:
        add_model(server.settings, "m1")
        got = server.http.get("/models/m1/weights?format=onnx")
        asked = server.http.head("/models/m1/weights?format=onnx", headers={"Range": "bytes=0-3"})
        assert asked.status_code == 200
        assert asked.content == b""
        for name in ("etag", "content-length", "content-disposition", "accept-ranges", "content-type"):
            assert asked.headers[name] == got.headers[name], name
        assert int(asked.headers["content-length"]) == len(got.content)
        for path in ("/livez", "/jobs", "/docs", "/openapi.json", "/models/m1"):
            asked, got = server.http.head(path), server.http.get(path)
            assert (asked.status_code, asked.content) == (200, b""), path
            assert asked.headers["content-length"] == str(len(got.content)), path
        assert server.http.head("/readyz").status_code == 503  # no engine
        lost = server.http.head("/models/m2/weights")
        assert (lost.status_code, lost.content) == (404, b"")
        assert server.http.get("/livez").status_code == 200  # the connection is still in order
        refused = server.http.head("/events")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
