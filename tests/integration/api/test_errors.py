"""Whatever goes wrong is a problem with a code and a request id, and says nothing about our inside."""

from __future__ import annotations

from typing import Any

import pysqlite3
import pytest
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from detection.errors import ConfigError, DeviceError, Fault, UnknownNameError
from tests.integration.api.conftest import Api, MakeApi, assert_problem, pointers


def raising(api: Api, error: Exception) -> Any:
    @api.app.get("/boom")
    def boom() -> None:
        raise error

    return api.get("/boom")


def test_an_unknown_path_is_a_problem(api: Api) -> None:
    for path in ("/nothing", "/jobs/a/b/c", "/docs/evil.js", "/%2e%2e/etc/passwd"):
        assert_problem(api.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/datasets", "GET, HEAD, POST"),
        ("POST", "/jobs", "GET, HEAD"),
        ("PUT", "/models/x", "DELETE, GET, HEAD, PATCH"),
        ("DELETE", "/livez", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
        ("TRACE", "/jobs/x", "DELETE, GET, HEAD"),
        ("GET", "/train", "POST"),
        ("HEAD", "/train", "POST"),
    ],
)
def test_a_wrong_method_names_the_right_ones(api: Api, method: str, path: str, allow: str) -> None:
    answer = api.client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    if method != "HEAD":
        assert_problem(answer, 405, "method_not_allowed")


def test_what_we_did_not_foresee_tells_nothing(api: Api) -> None:
    answer = raising(api, RuntimeError("secret at /etc/shadow: select * from api_keys"))
    problem = assert_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert problem["request_id"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("select", {}, Exception("database is locked")),
        InterfaceError("select", {}, Exception("connection already closed")),
        DBAPIError("select", {}, Exception("gone"), connection_invalidated=True),
        PoolTimeoutError("no connection within 30 s"),
    ],
)
def test_a_database_that_is_away_is_503(api: Api, error: Exception) -> None:
    answer = raising(api, error)
    assert_problem(answer, 503, "database_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert "select" not in answer.text


def test_a_full_disk_below_the_database_is_named(api: Api) -> None:
    database = pysqlite3.connect(":memory:")
    database.execute("PRAGMA max_page_count=2")
    with pytest.raises(pysqlite3.OperationalError) as full:
        database.execute("CREATE TABLE words AS SELECT randomblob(100000)")
    problem = assert_problem(
        raising(api, OperationalError("insert", {}, full.value)), 503, "database_unavailable"
    )
    assert problem["detail"] == "the disk of the database is full"


def test_a_wrong_statement_is_our_own_fault(api: Api) -> None:
    error = ProgrammingError("select secret", {}, Exception("no such column"))
    assert "select" not in raising(api, error).text
    assert_problem(api.get("/boom"), 500, "internal_error")


def test_errors_of_the_library_that_a_request_can_cause(api: Api) -> None:
    problem = assert_problem(
        raising(api, ConfigError([Fault("/a", "wrong"), Fault("/b", "wrong too")])), 422, "invalid_input"
    )
    assert pointers(problem) == ["/a", "/b"]


def test_an_unknown_name_lists_the_names(api: Api) -> None:
    answer = raising(api, UnknownNameError("thing", "x", ["y", "z"]))
    assert "there are: y, z" in assert_problem(answer, 422, "invalid_input")["detail"]


def test_other_errors_of_the_library_are_ours(api: Api) -> None:
    assert_problem(raising(api, DeviceError("0", "no driver at /dev/nvidia0", [])), 500, "internal_error")


def test_a_request_id_is_kept_when_it_is_harmless(api: Api) -> None:
    assert api.get("/livez", headers={"X-Request-ID": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for strange in ("a b", "x" * 65, "ü", "a;b", ""):
        given = api.get("/livez", headers={"X-Request-ID": strange.encode()}).headers["x-request-id"]
        assert given != strange
        assert len(given) == 36


def test_every_answer_has_the_security_headers(api: Api) -> None:
    for path in ("/livez", "/jobs", "/nothing", "/openapi.json"):
        headers = api.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_a_body_that_is_announced_too_large_is_not_read(make_api: MakeApi) -> None:
    api = make_api(max_json_bytes=100, max_detect_bytes=1000)
    for path in ("/train", "/jobs/x/cancel", "/nothing", "/jobs"):
        answer = api.client.post(path, content=b"x" * 101)
        assert_problem(answer, 413, "payload_too_large")
        assert answer.headers["connection"] == "close"
    assert_problem(api.client.post("/detect", content=b"x" * 1001), 413, "payload_too_large")


def test_a_body_without_a_length_is_refused_while_it_comes(make_api: MakeApi) -> None:
    api = make_api(max_json_bytes=100)
    sent = 0

    def pieces() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 10

    answer = api.client.post("/train", content=pieces(), headers={"content-type": "application/json"})
    assert_problem(answer, 413, "payload_too_large")


def test_a_compressed_body_is_refused(api: Api) -> None:
    answer = api.client.post("/train", content=b"x", headers={"content-encoding": "gzip"})
    assert_problem(answer, 415, "unsupported_media")
    fine = api.client.post("/train", json={}, headers={"content-encoding": "identity"})
    assert_problem(fine, 422, "invalid_input")
