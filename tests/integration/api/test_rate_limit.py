"""429: by key, by address where no key is needed, never for those who look after the service."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.api import gate
from app.database.session import Sessions
from app.database.tables import ApiKey
from app.keys.revocation import revoke_key
from app.keys.service import KeyMark, Scope, create_key, find_key, list_keys
from tests.integration.api.conftest import HERE, Api, MakeApi, assert_problem


def key(api: Api) -> dict[str, str]:
    with api.session() as session:
        return {"X-API-Key": create_key(session, "tester", [Scope.READ])}


def statuses(api: Api, num_requests: int, headers: dict[str, str] | None = None) -> list[int]:
    return [api.get("/jobs", headers=headers).status_code for _ in range(num_requests)]


def test_without_a_setting_there_is_no_limit(api: Api) -> None:
    assert set(statuses(api, 100)) == {200}


def test_too_many_requests_are_told_when_to_come_back(make_api: MakeApi) -> None:
    api = make_api(max_requests_per_minute=3)
    assert statuses(api, 3) == [200] * 3
    answer = api.get("/jobs")
    problem = assert_problem(answer, 429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 20
    assert f"{answer.headers['retry-after']} s" in problem["detail"]


def test_writes_are_refused_before_their_body_is_read(make_api: MakeApi) -> None:
    api = make_api(max_requests_per_minute=1)
    statuses(api, 1)
    assert_problem(api.upload(b"x" * 10_000_000), 429, "rate_limited")


def test_each_key_has_its_own_limit(make_api: MakeApi) -> None:
    api = make_api(max_requests_per_minute=2, require_keys=True)
    first, second = key(api), key(api)
    assert statuses(api, 3, first) == [200, 200, 429]
    assert statuses(api, 3, second) == [200, 200, 429]


def test_wrong_keys_count_for_their_address_and_good_ones_do_not(make_api: MakeApi) -> None:
    api = make_api(max_requests_per_minute=2, require_keys=True)
    good = key(api)
    assert statuses(api, 1, good) == [200]
    assert statuses(api, 4, {"X-API-Key": "guess"}) == [401, 401, 429, 429]
    assert statuses(api, 1, good) == [200]


def test_guessing_over_the_limit_asks_no_database(make_api: MakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api = make_api(max_requests_per_minute=2, require_keys=True)
    asked = []

    def find(reading: Sessions, mark: KeyMark) -> ApiKey | None:
        asked.append(mark)
        return find_key(reading, mark)

    monkeypatch.setattr(gate, "find_key", find)
    for number in range(5):
        statuses(api, 1, {"X-API-Key": f"guess-{number}"})
    assert asked == [KeyMark.of("guess-0"), KeyMark.of("guess-1")]
    assert statuses(api, 1, key(api)) == [429], "nobody can know yet that it is a good one"


def test_a_key_that_is_revoked_is_no_good_key_any_more(make_api: MakeApi) -> None:
    api = make_api(max_requests_per_minute=2, require_keys=True)
    good = key(api)
    assert statuses(api, 1, good) == [200]
    with api.session() as session:
        (row,) = list_keys(session)
        revoke_key(session, row.id)
    assert statuses(api, 4, good) == [401, 401, 429, 429]


def test_each_address_has_its_own_limit(make_api: MakeApi) -> None:
    api = make_api(max_requests_per_minute=1)
    assert statuses(api, 2) == [200, 429]
    other = TestClient(api.app, base_url=HERE, client=("127.0.0.2", 1))
    assert other.get("/jobs").status_code == 200


def test_probes_and_documentation_are_never_refused(make_api: MakeApi) -> None:
    api = make_api(max_requests_per_minute=1)
    assert statuses(api, 2) == [200, 429]
    for path in ("/livez", "/readyz", "/docs", "/openapi.json", "/"):
        assert api.get(path).status_code == 200, path
