"""Who may come in: keys and scopes on every route, host names, other web sites."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.database.tables import ApiKey, AuditRow, utc_now
from app.keys.revocation import revoke_key
from app.keys.service import (
    BootstrapKeyError,
    ExposureError,
    Scope,
    check_exposure,
    create_key,
    list_keys,
)
from app.main import create_app
from app.settings import Settings
from app.v2.errors import speaks_at
from tests.integration.api.conftest import HERE, Api, MakeApi, assert_problem, assert_refused

PUBLIC = {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}


@pytest.fixture
def guarded(make_api: MakeApi) -> Api:
    return make_api(require_keys=True)


def key(api: Api, *scopes: Scope, **options: Any) -> dict[str, str]:
    with api.session() as session:
        return {"Authorization": f"Bearer {create_key(session, 'tester', scopes, **options)}"}


def every_call(api: Api) -> Iterator[tuple[str, str]]:
    for path, calls in api.app.openapi()["paths"].items():
        for method in calls:
            yield method.upper(), path.replace("{name}", "yolox-nano").replace("{", "").replace("}", "")


def test_every_call_but_health_needs_a_key(guarded: Api) -> None:
    for method, path in every_call(guarded):
        answer = guarded.client.request(method, path)
        if path in PUBLIC:
            assert answer.status_code in (200, 503)
        else:
            assert_refused(answer, path, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_path_that_does_not_exist_says_nothing_to_strangers(guarded: Api) -> None:
    assert_problem(guarded.get("/secret"), 401, "unauthorized")
    for path in (
        "/docs/../jobs",
        "/docs/",
        "/docs/nothing.js",
        "/livez/",
        "/livez%2F..%2Fjobs",
        "/%6civez/x",
    ):
        assert_problem(guarded.get(path), 401, "unauthorized")


def test_every_call_asks_for_a_scope(guarded: Api) -> None:
    """A key without any scope gets in nowhere: no route was forgotten."""
    headers = key(guarded)
    for method, path in every_call(guarded):
        if path not in PUBLIC:
            answer = guarded.client.request(method, path, headers=headers, json={})
            assert_refused(answer, path, 403, "forbidden")


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        (Scope.READ, {"GET", "LOOK UP"}),
        (Scope.TRAIN, {"POST", "PATCH", "DELETE"}),
        (Scope.DETECT, {"DETECT", "LOOK UP"}),
    ],
)
def test_a_scope_opens_what_it_names(guarded: Api, scope: Scope, allowed: set[str]) -> None:
    headers = key(guarded, scope)
    for method, path in every_call(guarded):
        if path in PUBLIC:
            continue
        answer = guarded.client.request(method, path, headers=headers, json={}, params={"last_event_id": "x"})
        kind = "LOOK UP" if speaks_at(path) else method
        kind = "DETECT" if path == "/detect" or path.endswith("/infer") else kind
        assert (answer.status_code != 403) == (kind in allowed), (method, path, answer.text)


def test_admin_opens_everything(guarded: Api) -> None:
    headers = key(guarded, Scope.ADMIN)
    for method, path in every_call(guarded):
        answer = guarded.client.request(method, path, headers=headers, json={}, params={"last_event_id": "x"})
        assert answer.status_code not in (401, 403), (method, path)


def test_a_key_comes_in_either_header(guarded: Api) -> None:
    secret = key(guarded, Scope.READ)["Authorization"].removeprefix("Bearer ")
    assert guarded.get("/jobs", headers={"X-API-Key": secret}).status_code == 200
    assert guarded.get("/jobs", headers={"Authorization": f"bearer  {secret} "}).status_code == 200
    assert guarded.get("/jobs", params={"api_key": secret}).status_code == 401
    assert guarded.get(f"/jobs?X-API-Key={secret}").status_code == 401


def test_all_wrong_keys_look_alike(guarded: Api) -> None:
    good = key(guarded, Scope.READ)["Authorization"]
    expired = key(guarded, Scope.READ, expires_at=utc_now() - timedelta(seconds=1))["Authorization"]
    revoked = key(guarded, Scope.READ)["Authorization"]
    with guarded.session() as session:
        assert revoke_key(session, list_keys(session)[-1].id)
    wrong = [
        "Bearer x",
        "Bearer ",
        "Bearer",
        "Basic dTpw",
        f"{good}x",
        good[:-1],
        expired,
        revoked,
        "Bearer hr_ü_1",
    ]
    bodies = []
    for value in wrong:
        problem = assert_problem(
            guarded.get("/jobs", headers={"Authorization": value.encode()}), 401, "unauthorized"
        )
        del problem["request_id"]
        bodies.append(problem)
    assert all(body == bodies[0] for body in bodies)
    without = assert_problem(guarded.get("/jobs"), 401, "unauthorized")
    assert without["detail"] == bodies[0]["detail"]
    for word in ("missing", "not known", "expired", "revoked", "Bearer"):
        assert word in bodies[0]["detail"]
    assert guarded.get("/jobs", headers={"Authorization": good}).status_code == 200


def test_at_home_no_key_is_needed_but_a_wrong_one_is_refused(api: Api) -> None:
    assert api.get("/jobs").status_code == 200
    assert_problem(api.get("/jobs", headers={"X-API-Key": "wrong"}), 401, "unauthorized")
    assert_problem(api.get("/jobs", headers={"Authorization": "Basic dTpw"}), 401, "unauthorized")


def test_a_key_is_stored_as_a_hash_and_its_use_is_noted(guarded: Api) -> None:
    headers = key(guarded, Scope.READ)
    secret = headers["Authorization"].removeprefix("Bearer ")
    for _ in range(3):
        guarded.get("/jobs", headers=headers)
    (row,) = guarded.rows(ApiKey)
    assert secret.startswith(f"hr_{row.prefix}_")
    assert secret not in (row.hash, row.prefix, row.name)
    assert row.last_used_at is not None


def test_who_wrote_is_written_down(guarded: Api) -> None:
    headers = key(guarded, Scope.TRAIN) | {"X-Request-ID": "req-1"}
    job_id = guarded.job()
    guarded.post(f"/jobs/{job_id}/cancel", headers=headers)
    rows = [(row.actor, row.action, row.subject, row.request_id) for row in guarded.rows(AuditRow)]
    assert rows[-1] == ("tester", "job.cancel", f"jobs/{job_id}", "req-1")


def test_revoking_is_by_id_or_prefix_and_once(guarded: Api) -> None:
    headers = key(guarded, Scope.READ)
    with guarded.session() as session:
        (row,) = list_keys(session)
        assert revoke_key(session, row.prefix)
        assert not revoke_key(session, row.prefix)
        assert not revoke_key(session, "nothing")
    assert guarded.get("/jobs", headers=headers).status_code == 401


def test_an_open_server_listens_at_home_only(make_api: MakeApi) -> None:
    api = make_api()
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        check_exposure(Settings(home=api.settings.home, host=host, _env_file=None), api.state.sessions)
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        exposed = Settings(home=api.settings.home, host=host, _env_file=None)
        with pytest.raises(ExposureError, match="harrier keys create"):
            check_exposure(exposed, api.state.sessions)
    key(api, Scope.READ)
    check_exposure(exposed, api.state.sessions)


def test_the_application_itself_does_not_start_open_to_others(database: str, folder: Path) -> None:
    settings = Settings(home=folder / "home", database_url=database, host="0.0.0.0", _env_file=None)
    with pytest.raises(ExposureError), TestClient(create_app(settings)):
        pass


def test_the_first_key_comes_from_a_file(make_api: MakeApi, folder: Path) -> None:
    secret = "a-secret-that-people-chose-themselves-1"
    (folder / "key").write_text(f"{secret}\n")
    api = make_api(host="0.0.0.0", bootstrap_key_file=folder / "key")
    headers = {"X-API-Key": secret}
    assert api.get("/jobs", headers=headers).status_code == 200
    assert api.post("/train", {}, headers=headers).status_code == 422
    again = make_api(host="0.0.0.0", bootstrap_key_file=folder / "key")
    assert [row.name for row in again.rows(ApiKey)] == ["bootstrap"]


@pytest.mark.parametrize(
    "content", [b"short", b"two words that are long enough to be a key", b"\xff" * 40, b""]
)
def test_a_bootstrap_file_must_hold_a_key(make_api: MakeApi, folder: Path, content: bytes) -> None:
    (folder / "key").write_bytes(content)
    with pytest.raises(BootstrapKeyError):
        make_api(host="0.0.0.0", bootstrap_key_file=folder / "key")


def test_a_missing_bootstrap_file_is_said(make_api: MakeApi, folder: Path) -> None:
    with pytest.raises(BootstrapKeyError, match="cannot be read"):
        make_api(host="0.0.0.0", bootstrap_key_file=folder / "nothing")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "a/b?c", "", "x y", "[::1", "a@b"]
)
def test_an_open_server_answers_to_its_own_names_only(api: Api, host: str) -> None:
    assert_problem(api.get("/jobs", headers={"Host": host}), 400, "host_not_allowed")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "[::1]:8000", "LOCALHOST"])
def test_its_own_names_are_those_of_loopback(api: Api, host: str) -> None:
    assert api.get("/jobs", headers={"Host": host}).status_code == 200


def test_names_can_be_allowed(make_api: MakeApi) -> None:
    api = make_api(allowed_hosts="harrier.example,other.example")
    assert api.get("/jobs", headers={"Host": "harrier.example"}).status_code == 200
    assert_problem(api.get("/jobs", headers={"Host": "evil.example"}), 400, "host_not_allowed")


def test_with_keys_any_name_will_do(guarded: Api) -> None:
    headers = key(guarded, Scope.READ) | {"Host": "harrier.example"}
    assert guarded.get("/jobs", headers=headers).status_code == 200


def test_another_web_site_cannot_write_through_a_browser(api: Api) -> None:
    job_id = api.job()
    there = {"Origin": "https://evil.example"}
    assert_problem(api.post(f"/jobs/{job_id}/cancel", headers=there), 403, "cross_site")
    assert_problem(api.post(f"/jobs/{job_id}/cancel", headers={"Origin": "null"}), 403, "cross_site")
    assert api.get("/jobs", headers=there).status_code == 200  # which the browser does not show to that site
    assert "access-control-allow-origin" not in api.get("/jobs", headers=there).headers
    here = {"Origin": "http://127.0.0.1:8000"}
    assert api.post(f"/jobs/{job_id}/cancel", headers=here).status_code == 202


def test_a_web_site_can_be_allowed(make_api: MakeApi) -> None:
    api = make_api(cors_origins="https://page.example")
    page = {"Origin": "https://page.example"}
    asked = api.client.options("/train", headers={**page, "Access-Control-Request-Method": "POST"})
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "https://page.example")
    answer = api.post("/train", {}, headers=page)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (
        422,
        "https://page.example",
    )
    assert_problem(api.post("/train", {}, headers={"Origin": "https://evil.example"}), 403, "cross_site")
    evil = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    refused = api.client.options("/train", headers=evil)
    assert "HARRIER_CORS_ORIGINS" in assert_problem(refused, 403, "cross_site")["detail"]
    assert "access-control-allow-origin" not in refused.headers
    assert "origin" in refused.headers["vary"].lower()


def test_an_allowed_site_may_send_and_read_what_the_contract_needs(make_api: MakeApi) -> None:
    api = make_api(cors_origins="https://page.example")
    page = {"Origin": "https://page.example"}
    wanted = "authorization,idempotency-key,if-none-match,if-range,last-event-id,range,x-api-key,x-request-id"
    for method in ("GET", "HEAD", "POST", "PATCH", "DELETE"):
        asked = {**page, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": wanted}
        answer = api.client.options("/models", headers=asked)
        assert answer.status_code == 200, answer.text
        allowed = answer.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
        assert set(wanted.split(",")) <= set(allowed)
    shown = api.get("/jobs", headers=page).headers["access-control-expose-headers"].lower().split(", ")
    assert {
        "allow",
        "content-disposition",
        "content-range",
        "etag",
        "idempotency-replayed",
        "location",
        "retry-after",
        "x-harrier-model",
        "x-request-id",
    } <= set(shown)


@pytest.mark.parametrize("origin", ["http://127.0.0.1", "https://127.0.0.1:8000", "http://127.0.0.1:8001"])
def test_another_scheme_or_port_is_another_site(api: Api, origin: str) -> None:
    assert_problem(api.post("/train", {}, headers={"Origin": origin}), 403, "cross_site")


def test_the_usual_port_need_not_be_said(api: Api) -> None:
    for host, origin in (("localhost:80", "http://localhost"), ("localhost", "http://LOCALHOST:80")):
        answer = api.post("/train", {}, headers={"Host": host, "Origin": origin})
        assert_problem(answer, 422, "invalid_input")


def test_no_client_of_a_proxy_renames_itself_to_this_machine(make_api: MakeApi) -> None:
    api = make_api(allowed_hosts="vision.example", trusted_proxies="10.0.0.2")
    client = TestClient(api.app, base_url=HERE, client=("10.0.0.2", 1))
    for said in ("localhost", "127.0.0.1:8000", "[::1]"):
        headers = {"Host": "evil.example", "X-Forwarded-Host": said}
        assert_problem(client.get("/jobs", headers=headers), 400, "host_not_allowed")
    headers = {"Host": "inner", "X-Forwarded-Host": "vision.example"}
    assert client.get("/jobs", headers=headers).status_code == 200
