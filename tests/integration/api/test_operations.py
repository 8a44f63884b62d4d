"""Health, versions, workers, usage, measures, and the documentation."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from app.api.prefix import PrefixError
from app.database.tables import Job, ModelFile, Worker, utc_now
from app.jobs.states import Queue
from tests.fakes import dead_engine
from tests.integration.api.conftest import Api, MakeApi, assert_problem


def add_worker(api: Api, queue: Queue, *, seconds_ago: float = 0) -> None:
    with api.session() as session:
        seen_at = utc_now() - timedelta(seconds=seconds_ago)
        session.add(
            Worker(
                name=f"{queue}-1",
                queue=queue,
                hostname="here",
                pid=1,
                devices=[],
                versions={},
                seen_at=seen_at,
            )
        )
        session.commit()


def test_no_request_waits_until_the_api_has_described_itself(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make_api()

    def too_late(app: object) -> None:
        raise AssertionError("it is described while a client waits")

    monkeypatch.setattr("app.api.openapi._document", too_late)
    assert_problem(api.get("/jobs", params={"unknown": 1}), 422, "invalid_input")


def test_alive_is_alive_whatever_else_is_not(api: Api) -> None:
    api.engine.error = dead_engine().error
    assert api.get("/livez").json() == {"status": "alive"}


def test_without_broker_and_workers_jobs_wait(api: Api) -> None:
    answer = api.get("/readyz")
    assert answer.status_code == 200
    ready = answer.json()
    assert ready["status"] == "degraded"
    assert ready["checks"]["database"] == ready["checks"]["storage"] == ready["checks"]["engine"] == "ok"
    assert "does not answer" in ready["checks"]["broker"]
    assert ready["checks"]["workers"] == "none seen on queue cpu and gpu; its jobs wait"


def test_a_worker_counts_while_it_is_seen(api: Api) -> None:
    add_worker(api, Queue.CPU)
    add_worker(api, Queue.GPU, seconds_ago=3600)
    assert api.get("/readyz").json()["checks"]["workers"] == "none seen on queue gpu; its jobs wait"
    alive = {worker["name"]: worker["alive"] for worker in api.get("/workers").json()}
    assert alive == {"cpu-1": True, "gpu-1": False}


def test_without_the_engine_it_is_not_ready(api: Api) -> None:
    api.engine.error = dead_engine().error
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
    assert answer.json()["checks"]["engine"] == "the engine is not running"
    assert answer.headers["retry-after"] == "1"


def test_with_an_old_schema_it_is_not_ready(api: Api) -> None:
    with api.session() as session:
        session.execute(text("update alembic_version set version_num = 'older'"))
        session.commit()
    answer = api.get("/readyz")
    assert answer.status_code == 503
    assert "run the migrations" in answer.json()["checks"]["database"]


def test_without_its_files_it_is_not_ready(api: Api) -> None:
    (api.settings.home_path / "storage").rename(api.settings.home_path / "gone")
    assert api.get("/readyz").json()["checks"]["storage"] == "it cannot be reached"


def test_a_server_that_stops_is_not_ready(api: Api) -> None:
    api.state.drain()
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["server"]) == (503, "it is stopping")


def test_the_version_is_that_of_the_package(api: Api) -> None:
    shown = api.get("/version").json()
    assert re.fullmatch(r"\d+\.\d+\.\d+", shown["version"])
    assert shown["packages"]["torch"]


def test_measures_are_what_prometheus_reads(api: Api) -> None:
    api.job()
    for path in ("/jobs", "/jobs", "/jobs/nothing", "/made-up-1", "/made-up-2"):
        api.get(path)
    api.client.request("BREW", "/jobs")
    answer = api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    requests = {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["harrier_requests"].samples
        if sample.name == "harrier_requests_total"
    }
    assert requests["GET", "/jobs", "200"] == 2
    assert requests["GET", "/jobs/{job_id}", "404"] == 1
    assert requests["GET", "unknown", "404"] == 2
    assert requests["other", "/jobs", "405"] == 1
    jobs = families["harrier_jobs"].samples[0]
    assert (jobs.labels, jobs.value) == ({"kind": "train", "queue": "gpu", "status": "queued"}, 1)


def test_the_documentation_needs_no_network(api: Api) -> None:
    page = api.get("/docs")
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(linked) == 4
    assert not [link for link in linked if "//" in link or link.startswith("/")]
    for link in linked:
        assert api.get(f"/{link}").status_code == 200
    assert "<script>" not in page.text
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert 'url: "openapi.json"' in api.get("/docs/start.js").text
    assert_problem(api.get("/docs/other.js"), 404, "not_found")


@pytest.mark.parametrize("left", ["", "/harrier"])
def test_behind_a_prefix_everything_stays_below_it(make_api: MakeApi, left: str) -> None:
    """Whether the proxy leaves the prefix or not; test_behind_a_proxy.py asks the real server."""
    api = make_api(require_keys=True, root_path="/harrier/")
    assert api.get(f"{left}/livez").status_code == 200
    assert api.get(f"{left}/docs").status_code == 200
    assert_problem(api.get(f"{left}/jobs"), 401, "unauthorized")
    assert api.get(f"{left}/openapi.json").json()["servers"] == [{"url": "/harrier"}]


def test_a_path_that_only_begins_like_the_prefix_is_another(make_api: MakeApi) -> None:
    assert_problem(make_api(root_path="/harrier").get("/harriers/livez"), 404, "not_found")


@pytest.mark.parametrize("prefix", ["/jobs", "/docs", "/models/import", "/jobs/x", "/models/a/weights"])
def test_a_prefix_that_looks_like_a_path_of_ours_is_refused(make_api: MakeApi, prefix: str) -> None:
    with pytest.raises(PrefixError, match="HARRIER_ROOT_PATH"):
        make_api(root_path=prefix)


@pytest.mark.parametrize("path", ["/jobs", "/livez", "/readyz", "/docs", "/docs/start.js", "/openapi.json"])
def test_head_is_get_without_the_body(api: Api, path: str) -> None:
    asked, got = api.client.head(path), api.get(path)
    assert (asked.status_code, asked.content) == (200, b"")
    for name in ("content-length", "content-type"):
        assert asked.headers[name] == got.headers[name]


def test_head_of_an_error_is_that_error(api: Api) -> None:
    assert api.client.head("/jobs/nothing").status_code == 404
    refused = api.client.head("/train")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


def test_head_of_a_file_does_not_read_it(api: Api) -> None:
    model_id = api.model({"onnx": b"12345"})
    (file,) = api.rows(ModelFile)
    asked = api.client.head(f"/models/{model_id}/weights?format=onnx", headers={"Range": "bytes=0-1"})
    assert (asked.status_code, asked.headers["content-length"]) == (200, "5")
    assert asked.headers["etag"] == f'"{file.sha256}"'
    known = {"If-None-Match": asked.headers["etag"]}
    assert api.client.head(f"/models/{model_id}/weights?format=onnx", headers=known).status_code == 304


def test_a_stream_that_never_ends_knows_no_head(api: Api) -> None:
    for path in ("/events", f"/jobs/{api.job()}/events"):
        refused = api.client.head(path)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
        assert api.client.put(path).headers["allow"] == "GET"
    assert api.client.put("/jobs").headers["allow"] == "GET, HEAD"
    assert api.client.put("/docs").headers["allow"] == "GET, HEAD"


def test_an_unknown_parameter_of_the_query_is_refused(api: Api) -> None:
    problem = assert_problem(api.get("/jobs?statsu=queued&limit=3&x=1"), 422, "invalid_input")
    assert [(error["place"], error["pointer"]) for error in problem["errors"]] == [
        ("query", "/statsu"),
        ("query", "/x"),
    ]
    assert problem["errors"][0]["problem"].endswith("did you mean `status`?")
    assert_problem(api.post("/train?epochs=3", {"dataset_id": api.ready_dataset()}), 422, "invalid_input")
    assert api.rows(Job) == []
    assert api.get("/livez?from=balancer").status_code == 200


def test_a_parameter_that_takes_one_value_stands_once_in_the_query(api: Api) -> None:
    problem = assert_problem(api.get("/jobs?limit=3&limit=4&limit=4&x=1&kind=train"), 422, "invalid_input")
    assert [(error["pointer"], error["problem"]) for error in problem["errors"]] == [
        ("/limit", "this parameter takes one value, and is there 3 times"),
        ("/x", "this parameter is not known"),
    ]
    for _ in range(2):  # what was refused once is not remembered as known
        refused = api.client.post("/detect?score_threshold=0.3&score_threshold=0.3", content=b"?")
        assert [each["pointer"] for each in assert_problem(refused, 422, "invalid_input")["errors"]] == [
            "/score_threshold"
        ]
    assert api.client.post("/detect?classes=a&classes=b", content=b"?").status_code == 415


def test_the_broker_is_asked_where_the_settings_say(make_api: MakeApi) -> None:
    api = make_api(redis_url="redis://127.0.0.1:1/0")
    assert "does not answer" in api.get("/readyz").json()["checks"]["broker"]
